"""`dapflow worker`: what starts the nights that a server has due. Test: make test-nights"""

import os
import socket
import sys
from typing import NoReturn

from dapflow.flows.cli.nights.server import HEARTBEAT_SECONDS, LOCAL, POOL, Server, reach
from dapflow.flows.cli.options import AllowCommands, allow
from dapflow.flows.server.environment import prepare
from dapflow.storage.errors import UserError


def worker(
    *, pool: str = POOL, allow_commands: AllowCommands = False, server: Server = LOCAL
) -> NoReturn:
    """Start a worker for the nights: it starts each run in a process of its own. Ctrl-C ends it.

    Example: dapflow worker
    """
    allow(allow_commands)
    reach(server)
    prepare(None)
    check_pool(pool)
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_SECONDS))
    # by which flows/server/dead_runs.py knows the machine
    name = f"{socket.gethostname()} {os.getpid()}"
    command = [
        sys.executable,
        "-P",
        "-m",
        "dapflow.flows.server.worker",
        "worker",
        "start",
        "--pool",
        pool,
        "--name",
        name,
    ]
    os.execv(sys.executable, command)


def check_pool(pool: str) -> None:
    """Raises UserError when it is not there: Prefect would make one of any name, and the worker
    would wait beside it for ever.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound as error:
            if pool != POOL:  # which the worker may make, and `dapflow deploy` then takes
                raise UserError(
                    f"There is no work pool {pool}: `dapflow worker` alone takes {POOL}, which "
                    "`dapflow deploy` makes."
                ) from error

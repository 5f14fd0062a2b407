"""`dapflow ui`: Prefect's server and its pages, behind our door. Test: pytest
tests/flows/server/test_doors.py
"""

import os
import socket
import sys
from typing import NoReturn

from dapflow.flows.cli.options import AllowHost, Lake, Port, check_free, name_hosts
from dapflow.flows.server.environment import UI_PASSWORD, prepare, server_password
from dapflow.storage.errors import UserError
from dapflow.storage.location import locate
from dapflow.tasks.servers.door import is_loopback


def ui(
    *, lake: Lake = "lake", port: Port = 4200, host: str = "127.0.0.1", allow_host: AllowHost = ()
) -> NoReturn:
    """Open the Prefect UI on the runs of a lake, on loopback; Ctrl-C ends it. Workers and schedules
    use the same server.

    Example: dapflow ui --port 4300

    Parameters
    ----------
    host
        Another address to listen on: then a password must be set in DAPFLOW_UI_PASSWORD (for the user `dapflow`, or user:password), and is
        asked for.
    """
    password = server_password()
    if not is_loopback(host) and not password:
        raise UserError(
            f"--host {host} lets others in: set a password in {UI_PASSWORD}, which they are then "
            "asked for (user dapflow)."
        )
    check_free(host, port)
    name_hosts(allow_host)
    prepare(lake)
    shown = (
        socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    )
    os.environ.pop("PREFECT_API_URL", None)  # a server asks no other
    for name in ("PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL"):
        os.environ.setdefault(name, "/api")  # by whichever of its names the browser came
    os.environ.setdefault("PREFECT_UI_URL", f"http://{shown}:{port}")  # what notifications link to
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect.server.concurrency.lease_storage.filesystem",
    )
    print(f"The runs of {locate(lake).address}: http://{shown}:{port}/runs", flush=True)
    if not password:
        print(
            f"Every user of this machine can reach it: set {UI_PASSWORD} to have a password asked "
            "for (user dapflow).",
            flush=True,
        )
    pages = str(locate(lake).root.absolute() / "reports")
    os.execv(
        sys.executable,
        [
            sys.executable,
            "-P",
            "-m",
            "dapflow.flows.server.prefect_server",
            "--host",
            host,
            "--port",
            str(port),
            "--reports",
            pages,
        ],
    )

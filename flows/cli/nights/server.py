"""The Prefect server that nights run on: which, and whether it answers. Test: make test-nights"""

import os
from typing import Annotated

from cyclopts import Parameter

from dapflow.flows.server.environment import refused
from dapflow.storage.errors import UserError

POOL = "dapflow"
HEARTBEAT_SECONDS = 30  # Prefect's shortest
Server = Annotated[
    str,
    Parameter(
        name="--server",
        env_var="PREFECT_API_URL",
        help="The Prefect server's API; PREFECT_API_AUTH_STRING, if it asks for one.",
    ),
]
LOCAL = "http://127.0.0.1:4200/api"


def reach(server: str) -> None:
    """Make a server the one that all of Prefect talks to. Raises UserError when it does not answer."""
    import httpx

    os.environ["PREFECT_API_URL"] = server
    try:
        answer = httpx.get(f"{server}/health", timeout=30)
        if answer.status_code == 403:
            raise UserError(refused(server, answer.text))
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise UserError(
            f"No Prefect server answers at {server} ({error}): start one with `dapflow ui`, or "
            "name another with --server."
        ) from error

"""The server that Prefect starts for a run where PREFECT_API_URL names none: behind our door, and
started while our libraries are imported.

It takes as long to start as they to import: side by side they take half the time.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer


def put_behind_the_door() -> None:
    """Whichever call of Prefect's in this process starts the server: what is started is ours
    (flows/server/prefect_server.py), not the open one.
    """
    from prefect.server.api.server import SubprocessASGIServer

    SubprocessASGIServer._run_uvicorn_command = _start


def _start(self: "SubprocessASGIServer") -> "subprocess.Popen[Any]":
    from prefect.settings import get_current_settings

    kind = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }  # as Prefect starts it
    environment = (
        os.environ | kind | get_current_settings().to_environment_variables(exclude_unset=True)
    )
    command = [
        sys.executable,
        "-P",
        "-m",
        "dapflow.flows.server.prefect_server",
        "--port",
        str(self.port),
        "--of-run",
    ]
    # Ctrl-C, and a closed terminal, reach all of a session: the run would have no server left to
    # tell how it has ended.
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)


@contextmanager
def server_ahead() -> Iterator[None]:
    """Starts the server that Prefect would start at the first call, unless there is another one;
    the block imports what takes long.

    After the block it answers. Where it does not start, the first call of Prefect's says why. An
    exception in the block ends it.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        yield
        return
    put_behind_the_door()
    server = SubprocessASGIServer()

    def start() -> None:
        with suppress(Exception):
            server.start()

    thread = Thread(target=start, name="start of Prefect's server", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        while thread.is_alive() and server.server_process is None:
            time.sleep(0.01)
        process = server.server_process
        server.stop()
        if process is not None and process.stdin is not None:
            process.stdin.close()
        raise
    thread.join()

"""Prefect's own server takes as long to start as our libraries to import: side by side they take half the time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread


@contextmanager
def server_ahead() -> Iterator[None]:
    """Starts the server that Prefect would start at the first call, unless there is another one; the block imports what takes long.

    After the block it answers. Where it does not start, the first call of Prefect's says why. An exception in the block ends it.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        yield
        return
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
        server.stop()
        raise
    thread.join()

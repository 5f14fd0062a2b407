"""Prefect's server behind our door (tasks/servers/door.py): the one that `dapflow ui` starts, and
the one inside `dapflow run`.

Of `dapflow ui`, with the lake's own pages beside Prefect's, what artifacts link to:

/reports/<policy>/index.html   the report of an iteration, and the lineage pages beside it
/lineage/<version>             the newest lineage page of a dataset version, whatever policy it led to
Pages are written when an iteration ends. Where the server asks for a password, the pages do too.
What a locked database refuses is asked again here: of a browser's requests nobody else does. Test:
pytest tests/flows/server/test_prefect_server.py tests/flows/server/test_doors.py
"""

import argparse
import asyncio
import base64
import hmac
import os
import random
import signal
import threading
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dapflow.tasks.servers.door import MEBIBYTE, PAGES, Door, headed

REPORTS, LINEAGE = "/reports", "/lineage"
_NOT_YET = (
    "There is no page of {version} yet: it is written when the iteration ends, on the machine that "
    "ran it. Until then: dapflow lineage {version}\n"
)

# Prefect's own pages: their scripts make styles, and further scripts to draw graphs; nothing comes
# from, or goes to, another site.
_PREFECT = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; frame-src 'none'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_LARGEST_REQUEST, _LARGEST_MESSAGE = (
    16 * MEBIBYTE,
    2 * MEBIBYTE,
)  # Prefect's events and logs have 1.5 MB at most
_LONGEST_VERSION = 64
_GRACE_SECONDS = 5


class Guarded:
    """Pages behind a user and a password, `user:password`; open to all where there is none."""

    def __init__(self, app: ASGIApp, password: str | None) -> None:
        self._app = app
        self._wanted = f"Basic {base64.b64encode(password.encode()).decode()}" if password else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said, send = dict(scope["headers"]).get(b"authorization", b""), headed(send, PAGES)
        if self._wanted is None or hmac.compare_digest(said, self._wanted.encode()):
            await self._app(scope, receive, send)
        else:
            asked = PlainTextResponse(
                "A password is wanted.",
                401,
                {"WWW-Authenticate": 'Basic realm="dapflow", charset="UTF-8"'},
            )
            await asked(scope, receive, send)


class Patient:
    """An application whose 503 is repeated instead of passed on, after 0.1 to 0.5 seconds and up to
    `tries` times.

    Prefect says 503 when another transaction has written between a request's reading and its
    writing (SQLite, which then does not wait). Its own clients ask again; its UI loses what a
    person has filled in.
    """

    def __init__(self, app: ASGIApp, tries: int = 60) -> None:
        self._app, self._tries = app, tries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = [await receive()]
        while asked[-1].get("more_body"):
            asked.append(await receive())
        for left in reversed(range(self._tries)):
            if await self._answered(scope, asked, receive, send, last=left == 0):
                break
            await asyncio.sleep(random.uniform(0.1, 0.5))

    async def _answered(
        self, scope: Scope, asked: list[Message], receive: Receive, send: Send, last: bool
    ) -> bool:
        """Whether one more try was answered, and the answer sent; the last one's is, whatever it
        says.
        """
        messages, refused = iter(asked), False

        async def repeat() -> Message:
            return next(messages, None) or await receive()

        async def answer(message: Message) -> None:
            nonlocal refused
            refused = refused or (
                message["type"] == "http.response.start" and message["status"] == 503 and not last
            )
            if not refused:
                await send(message)

        try:
            await self._app(dict(scope), repeat, answer)
        except Exception:  # Starlette raises it anew once it has answered
            if not refused:
                raise
        return not refused


def pages(reports: Path, password: str | None) -> list[Mount]:
    """The routes of the pages in a lake's folder `reports`."""

    def lineage(request: Request) -> Response:
        version = request.path_params["version"]
        known = version.isascii() and version.isalnum() and len(version) <= _LONGEST_VERSION
        found = (
            sorted(reports.glob(f"*/lineage/{version}.html"), key=lambda path: path.stat().st_mtime)
            if known
            else []
        )
        if not found:
            return PlainTextResponse(_NOT_YET.format(version=version), 404)
        return RedirectResponse(f"{REPORTS}/{found[-1].relative_to(reports).as_posix()}")

    reports.mkdir(parents=True, exist_ok=True)
    files = StaticFiles(directory=reports, html=True)
    found = Starlette(routes=[Route("/{version}", lineage)])
    return [Mount(REPORTS, Guarded(files, password)), Mount(LINEAGE, Guarded(found, password))]


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reports", type=Path, help="whose pages are served too")
    parser.add_argument(
        "--of-run",
        action="store_true",
        help="end with the process that started it, whose end is that of standard input",
    )
    arguments = parser.parse_args()
    if arguments.of_run:
        threading.Thread(target=_end_with_input, daemon=True).start()
    from prefect.server.api.server import create_app

    app = create_app(final=True)
    if arguments.reports:
        app.router.routes[:0] = pages(
            arguments.reports, os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
        )
    level = os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "WARNING").lower()
    uvicorn.run(
        behind_the_door(app, arguments.host),
        host=arguments.host,
        port=arguments.port,
        log_level=level,
        ws_max_size=_LARGEST_MESSAGE,
    )


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def behind_the_door(app: ASGIApp, host: str) -> Door:
    """Prefect's application, as it is served at an address."""
    return Door(Patient(app), host, _PREFECT, _LARGEST_REQUEST)


if __name__ == "__main__":
    main()

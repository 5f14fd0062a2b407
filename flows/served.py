"""The Prefect server that `dapflow ui` starts, with the lake's own pages beside Prefect's: what artifacts link to.

/reports/<policy>/index.html   the report of an iteration, and the lineage pages beside it
/lineage/<version>             the newest lineage page of a dataset version, whatever policy it led to
Pages are written when an iteration ends. Where the server asks for a password, the pages do too.
"""

import argparse
import base64
import hmac
import os
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

REPORTS, LINEAGE = "/reports", "/lineage"
_NOT_YET = "There is no page of {version} yet: it is written when the iteration ends, on the machine that ran it. Until then: dapflow lineage {version}\n"


class Guarded:
    """An application behind a user and a password, `user:password`; open to all where there is none."""

    def __init__(self, app: ASGIApp, password: str | None) -> None:
        self._app = app
        self._wanted = f"Basic {base64.b64encode(password.encode()).decode()}" if password else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = dict(scope["headers"]).get(b"authorization", b"")
        if self._wanted is None or hmac.compare_digest(said, self._wanted.encode()):
            await self._app(scope, receive, send)
        else:
            asked = PlainTextResponse("A password is wanted.", 401, {"WWW-Authenticate": 'Basic realm="dapflow", charset="UTF-8"'})
            await asked(scope, receive, send)


def pages(reports: Path, password: str | None) -> list[Mount]:
    """The routes of the pages in a lake's folder `reports`."""

    def lineage(request: Request) -> Response:
        version = request.path_params["version"]
        found = sorted(reports.glob(f"*/lineage/{version}.html"), key=lambda path: path.stat().st_mtime) if version.isalnum() else []
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
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reports", type=Path, required=True)
    arguments = parser.parse_args()
    from prefect.server.api.server import create_app

    app = create_app(final=True)
    app.router.routes[:0] = pages(arguments.reports, os.environ.get("PREFECT_SERVER_API_AUTH_STRING"))
    level = os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "WARNING").lower()
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level=level)


if __name__ == "__main__":
    main()

"""The labelling page's server: on loopback, or elsewhere with a password. Text goes out as JSON
only, and nothing is loaded from outside.

It stands behind the same door as every server of the project (tasks/servers/door.py): names other
than its own are for DAPFLOW_HOSTS to say.

    with serve(Desk(host="127.0.0.1", port=8700)) as desk: url = desk.show(sitting); sitting.wait()
Test: pytest tests/tasks/judging/judges/test_desk.py
"""

import base64
import hmac
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, get_args

from dapflow.storage import UserError
from dapflow.tasks.judging.judges.desk.sitting import Choice, Sitting
from dapflow.tasks.servers.door import is_loopback, names_of, refusal

PASSWORD = "DAPFLOW_LABEL_PASSWORD"
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_LARGEST_BODY = 4096
_LENGTH = re.compile("[0-9]{1,9}", re.ASCII)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Desk:
    """Where the page is. Raises UserError for an address that others can reach, without a password."""

    def __init__(self, *, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.names = names_of(host)
        self.password = os.environ.get(PASSWORD)
        if not is_loopback(host) and not self.password:
            raise UserError(
                f"Others can reach the labelling page at {host}, so it needs a password: set "
                f"{PASSWORD}, or leave host=127.0.0.1."
            )
        self.sitting: Sitting | None = None
        self.closed = False

    def show(self, sitting: Sitting) -> str:
        """Put a sitting on the page; returns its address."""
        self.sitting = sitting
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}"


@contextmanager
def serve(desk: Desk) -> Iterator[Desk]:
    """The page is there inside the block, on its port or, where that is taken, on any other."""
    server = _listen(desk)
    desk.port = server.server_address[1]
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield desk
    finally:
        desk.closed = True  # connections that a browser keeps open must not go on with what is over
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(desk: Desk) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"desk": desk})
    for port in (desk.port, 0):
        with suppress(OSError):
            return _Server((desk.host, port), handler)
    raise UserError(
        f"The labelling page cannot be served at {desk.host}: this machine has no such address."
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no error."""


class _Handler(BaseHTTPRequestHandler):
    desk: ClassVar[Desk]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the run."""

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path in _FILES:
            name, kind = _FILES[self.path]
            self._send(200, (Path(__file__).parent / name).read_bytes(), f"{kind}; charset=utf-8")
        elif self.path == "/state" and self.desk.sitting is not None:
            self._json(200, self.desk.sitting.shown())
        else:
            self._json(404, {"error": "there is nothing here"})

    def do_POST(self) -> None:
        body = self._body()
        sitting = self.desk.sitting
        if self._refused():
            return
        if sitting is None or not isinstance(body, dict):
            self._json(400, {"error": "a JSON object is wanted"})
        elif self.path == "/label" and body.get("choice") in get_args(Choice):
            done = sitting.answer(
                str(body.get("key")), body["choice"], _seconds(body.get("seconds"))
            )
            self._json(200 if done else 409, sitting.shown())
        elif self.path in ("/undo", "/finish"):
            done = sitting.undo() if self.path == "/undo" else sitting.finish()
            self._json(200 if done else 409, sitting.shown())
        else:
            self._json(400, {"error": "there is no such choice"})

    def _refused(self) -> bool:
        """Whether the request is not from the page itself, or without the password; then it has
        been answered.
        """
        desk = self.desk
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        if desk.closed:
            self.close_connection = True
        elif sentence := refusal(headers, desk.names, "http", self.command):
            self._json(403, {"error": sentence})
        elif (
            self.command == "POST" and self.headers.get_content_type() != "application/json"
        ):  # which no other site may send
            self._json(415, {"error": "JSON is wanted"})
        elif desk.password and not self._knows(desk.password):
            self._send(
                401,
                b"A password is wanted.",
                "text/plain",
                {"WWW-Authenticate": 'Basic realm="dapflow", charset="UTF-8"'},
            )
        else:
            return False
        return True

    def _knows(self, password: str) -> bool:
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        try:
            said = base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            return False
        return kind.lower() == "basic" and hmac.compare_digest(said, password.encode())

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not _LENGTH.fullmatch(length) or int(length) > _LARGEST_BODY:
            self.close_connection = True
            return None
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(
        self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            **_HEADERS,
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _seconds(value: Any) -> float | None:
    known = (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    )  # also no NaN, and no integer of 400 digits
    return float(value) if known else None

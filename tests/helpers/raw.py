"""HTTP as it is written, for requests that no client would send: two Host headers, none, an Origin
of another site, half a websocket.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[str, str]]
UPGRADE = (
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Status, headers by names in small letters, and the text."""

    status: int
    headers: dict[str, str]
    text: str


def ask(
    port: int,
    method: str = "GET",
    path: str = "/",
    headers: Headers = (),
    body: bytes = b"",
    *,
    host: bool = True,
) -> Answer:
    """The answer of a server on loopback. host: whether the right Host header comes first. A body
    brings its length along, unless the headers say how long it is."""
    own = [("Host", f"127.0.0.1:{port}")] if host else []
    known = {name for name, _ in headers} & {"Content-Length", "Transfer-Encoding"}
    length = [("Content-Length", str(len(body)))] if method == "POST" and not known else []
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in [*own, *length, *headers]),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        _send(connection, body)
        return _read(connection)


def wait_for(port: int, seconds: float = 120) -> None:
    """Until something listens there."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until, "nothing listens"
            time.sleep(0.05)


def _send(connection: socket.socket, body: bytes) -> None:
    try:
        connection.sendall(body)
    except OSError:  # it has answered before it had read all
        return


def _read(connection: socket.socket) -> Answer:
    read = b""
    while b"\r\n\r\n" not in read:
        more = connection.recv(65536)
        assert more, f"the connection was dropped after {read!r}"
        read += more
    head, _, text = read.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = int(
        headers.get("content-length", 2**30 if headers.get("connection") == "close" else 0)
    )
    while len(text) < length and (more := connection.recv(65536)):
        text += more
    return Answer(int(first.split()[1]), headers, text.decode(errors="replace"))

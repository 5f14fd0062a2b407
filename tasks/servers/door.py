"""The door of every server that the project starts: who may ask it, what its pages may load, and
how much may be sent to it.

    uvicorn.run(Door(app, listens="127.0.0.1", policy=TEXT))     every request and every websocket of an application
    refusal(headers, names_of("127.0.0.1"), "http", "POST")      the rule alone: why a request is refused, or None
A browser sends what any page that is open in it asks for. Two headers, which a page cannot choose,
tell such requests from those of the server's own pages: Host, the name that the server was looked
up by, and Origin, the page's. A request without Origin is no page's. It imports nothing outside the
standard library, so that a server in another environment can load the file. Test: pytest
tests/tasks/servers/test_door.py
"""

import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HOSTS = "DAPFLOW_HOSTS"
"""Names that a server answers to beside its own, with commas or spaces between them."""
MEBIBYTE = 2**20
_WHOLE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
TEXT = f"default-src 'none'; {_WHOLE}"
"""For what is no page: nothing is loaded."""
PAGES = f"default-src 'none'; style-src 'unsafe-inline'; {_WHOLE}"
"""For pages of HTML whose style stands in them."""
_HEADERS = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"no-referrer"}
_EVERYWHERE = ("0.0.0.0", "::")
_PLACE = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_PORTS = {"http": 80, "https": 443}


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's, for itself alone."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def names_of(listens: str) -> frozenset[str]:
    """The names, beside those of loopback, of a server that listens on that address: the address,
    and what DAPFLOW_HOSTS says.
    """
    own = socket.gethostname() if listens in _EVERYWHERE else listens
    return frozenset(
        name.strip("[]").lower()
        for name in [own, *os.environ.get(HOSTS, "").replace(",", " ").split()]
    )


def refusal(
    headers: Iterable[tuple[str, str]], names: frozenset[str], scheme: str, method: str
) -> str | None:
    """Why a request is not answered, in a sentence; None for what may come in. headers: by names in
    small letters, in any order.
    """
    sent: dict[str, list[str]] = {}
    for header, value in headers:
        sent.setdefault(header, []).append(value.strip())
    hosts, origins, sites = (
        sent.get(header, []) for header in ("host", "origin", "sec-fetch-site")
    )
    place = _place(scheme, hosts[0]) if len(hosts) == 1 else None
    if place is None:
        return "A request needs exactly one Host header, with the name of the server."
    name = place[1]
    if not is_loopback(name) and name not in names:
        return (
            f"This server does not answer to the name {name}: if the name is yours, start it with "
            f"--allow-host {name}, or {HOSTS}={name}."
        )
    if any(_origin(origin) != place for origin in origins):
        return "A page of another site may not ask this server."
    link = (
        method in ("GET", "HEAD")
        and sent.get("sec-fetch-mode") == ["navigate"]
        and sent.get("sec-fetch-dest") == ["document"]
    )
    if not link and any(site not in ("same-origin", "none") for site in sites):
        return "A page of another site may not ask this server, only link to it."
    return None


def _place(scheme: str, host: str) -> tuple[str, str, int] | None:
    found = _PLACE.fullmatch(host)
    port = int(found["port"] or _PORTS[scheme]) if found else 0
    return (scheme, found["name"].strip("[]").lower(), port) if found and 0 < port < 2**16 else None


def _origin(origin: str) -> tuple[str, str, int] | None:
    scheme, separator, host = origin.partition("://")
    return _place(scheme, host) if separator and scheme in _PORTS else None


class Door:
    """An application behind the door.

    listens: the address that its server listens on.
    policy: the Content-Security-Policy of what has none of its own.
    largest: bytes of a request; more is answered with 413. A request is read whole before the
    application sees it.
    """

    def __init__(
        self, app: App, listens: str = "127.0.0.1", policy: str = TEXT, largest: int = MEBIBYTE
    ) -> None:
        self._app, self._names, self._policy, self._largest = (
            app,
            names_of(listens),
            policy,
            largest,
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request, one websocket, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = [
            (header.decode("latin-1").lower(), value.decode("latin-1"))
            for header, value in scope["headers"]
        ]
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        send = headed(send, self._policy)
        if sentence := refusal(headers, self._names, scheme, scope.get("method", "GET")):
            await _refuse(scope, send, 403, sentence)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif (request := await self._read(dict(headers), receive)) is None:
            await _refuse(scope, send, 413, f"A request may have {self._largest:,} bytes at most.")
        else:
            await self._app(scope, request, send)

    async def _read(self, headers: dict[str, str], receive: Receive) -> Receive | None:
        """The request, to be read from the beginning; None where it is too large."""
        declared = headers.get("content-length", "0")
        if (
            not declared.isascii()
            or not declared.isdigit()
            or len(declared) > 15
            or int(declared) > self._largest
        ):
            return None
        messages, size = list[Message](), 0
        while not messages or messages[-1].get("more_body"):
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            if size > self._largest:
                return None
        left = iter(messages)

        async def again() -> Message:
            return next(left, None) or await receive()

        return again


def headed(send: Send, policy: str) -> Send:
    """Answers with the headers of all pages, where the application has not set them itself."""

    async def answer(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            there = {header.lower() for header, _ in message.get("headers", [])}
            wanted = _HEADERS | {b"content-security-policy": policy.encode()}
            message["headers"] = [
                *message.get("headers", []),
                *(each for each in wanted.items() if each[0] not in there),
            ]
        await send(message)

    return answer


async def _refuse(scope: MutableMapping[str, Any], send: Send, status: int, sentence: str) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get(
        "extensions", {}
    ):
        await send({"type": "websocket.close"})  # before it is accepted: the server answers 403
        return
    kind, body = ("websocket." if scope["type"] == "websocket" else ""), f"{sentence}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": f"{kind}http.response.start", "status": status, "headers": headers})
    await send({"type": f"{kind}http.response.body", "body": body})

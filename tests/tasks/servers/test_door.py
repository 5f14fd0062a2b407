"""Who comes through the door: what is not from the server's own pages, or calls it by another name,
reaches no application.
"""

import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import uvicorn

from dapflow.tasks.servers.door import HOSTS, Door, Receive, Send, is_loopback, names_of, refusal
from tests.helpers.processes import free_port
from tests.helpers.raw import UPGRADE, Answer, Headers, ask, wait_for

LARGEST = 1000


class Recorder:
    """Answers with the size of what it was sent; remembers what reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.reached.append(scope["type"])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        message, body = await receive(), b""
        while True:
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
            message = await receive()
        own = [(b"referrer-policy", b"origin")] if scope["path"] == "/own" else []
        text = str(len(body)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(len(text)).encode()), *own],
            }
        )
        await send({"type": "http.response.body", "body": text})


@pytest.fixture
def served() -> Iterator[tuple[int, Recorder]]:
    """A port, and the application behind the door."""
    port, application = free_port(), Recorder()
    settings = uvicorn.Config(
        Door(application, largest=LARGEST), port=port, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(port)
    yield port, application
    server.should_exit = True
    thread.join()


FOREIGN: list[tuple[str, Headers]] = [
    ("another name", [("Host", "evil.example:{port}")]),
    ("a name that begins like ours", [("Host", "localhost.evil.example")]),
    ("an address that is not loopback", [("Host", "0.0.0.0:{port}")]),
    ("no name", [("Host", "")]),
    ("no Host", []),
    ("two Hosts", [("Host", "127.0.0.1:{port}"), ("Host", "evil.example")]),
    ("another page", [("Host", "127.0.0.1:{port}"), ("Origin", "http://evil.example")]),
    ("a page without an address", [("Host", "127.0.0.1:{port}"), ("Origin", "null")]),
    ("an empty Origin", [("Host", "127.0.0.1:{port}"), ("Origin", "")]),
    ("a page of another port", [("Host", "127.0.0.1:{port}"), ("Origin", "http://127.0.0.1:1")]),
    (
        "a page of another scheme",
        [("Host", "127.0.0.1:{port}"), ("Origin", "https://127.0.0.1:{port}")],
    ),
    (
        "a page of another name of this machine",
        [("Host", "127.0.0.1:{port}"), ("Origin", "http://localhost:{port}")],
    ),
    (
        "two Origins",
        [
            ("Host", "127.0.0.1:{port}"),
            ("Origin", "http://127.0.0.1:{port}"),
            ("Origin", "http://evil.example"),
        ],
    ),
    ("another site's picture", [("Host", "127.0.0.1:{port}"), ("Sec-Fetch-Site", "cross-site")]),
    ("another port's picture", [("Host", "127.0.0.1:{port}"), ("Sec-Fetch-Site", "same-site")]),
]
OWN: list[tuple[str, Headers]] = [
    ("a program", [("Host", "127.0.0.1:{port}")]),
    ("through a tunnel", [("Host", "localhost:9")]),
    (
        "a page of the server",
        [
            ("Host", "localhost:{port}"),
            ("Origin", "http://LOCALHOST:{port}"),
            ("Sec-Fetch-Site", "same-origin"),
        ],
    ),
    ("IPv6", [("Host", "[::1]:{port}"), ("Origin", "http://[::1]:{port}")]),
    ("what a person types", [("Host", "127.0.0.1:{port}"), ("Sec-Fetch-Site", "none")]),
]


def at(port: int, headers: Headers) -> Headers:
    return [(name, value.replace("{port}", str(port))) for name, value in headers]


def asked(port: int, method: str, headers: Headers) -> Answer:
    extra = UPGRADE if method == "websocket" else ()
    return ask(port, "GET" if extra else method, "/", [*at(port, headers), *extra], host=False)


@pytest.mark.parametrize("method", ["GET", "POST", "websocket"])
def test_what_is_not_from_its_own_pages_reaches_no_application(
    served: tuple[int, Recorder], method: str
) -> None:
    port, application = served
    for name, headers in FOREIGN:
        answer = asked(port, method, headers)
        of_the_server = (
            name in ("no Host", "two Hosts", "two Origins") and answer.status == 400
        )  # uvicorn refuses them itself
        assert answer.status == 403 or of_the_server, name
        assert answer.text.strip(), name
        if not of_the_server and method != "websocket":
            assert answer.headers["x-content-type-options"] == "nosniff", name
    assert application.reached == []


@pytest.mark.parametrize("method", ["GET", "POST", "websocket"])
def test_its_own_pages_and_programs_come_in(served: tuple[int, Recorder], method: str) -> None:
    port, application = served
    for name, headers in OWN:
        assert asked(port, method, headers).status == (101 if method == "websocket" else 200), name
    assert len(application.reached) == len(OWN)


@pytest.mark.parametrize(
    ("method", "mode", "destination", "comes_in"),
    [("GET", "navigate", "document", True), ("POST", "navigate", "document", False), ("GET", "navigate", "iframe", False), ("GET", "cors", "empty", False)],
)  # fmt: skip
def test_another_site_may_link_here_and_no_more(
    method: str, mode: str, destination: str, comes_in: bool
) -> None:
    headers = [
        ("host", "localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", mode),
        ("sec-fetch-dest", destination),
    ]
    assert (refusal(headers, frozenset(), "http", method) is None) == comes_in


def test_a_refusal_says_how_to_let_a_name_in_and_the_name_then_comes_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = [("host", "GPU.example:4200"), ("origin", "http://gpu.example:4200")]
    sentence = refusal(headers, names_of("127.0.0.1"), "http", "POST")
    assert sentence is not None and "--allow-host gpu.example" in sentence
    monkeypatch.setenv(HOSTS, "server, gpu.example")
    assert refusal(headers, names_of("127.0.0.1"), "http", "POST") is None


def test_default_ports_are_the_same_whether_written_or_not() -> None:
    headers = [("host", "localhost"), ("origin", "https://localhost:443")]
    assert refusal(headers, frozenset(), "https", "POST") is None
    assert refusal(headers, frozenset(), "http", "POST") is not None


@pytest.mark.parametrize(
    "host",
    [
        "localhost:0",
        "localhost:99999",
        "localhost:",
        "localhost:80:80",
        "user@localhost",
        "localhost/",
        "[::1",
        "::1",
        "²",
    ],
)
def test_what_is_no_place_is_no_name(host: str) -> None:
    assert refusal([("host", host)], frozenset(), "http", "GET") is not None


def test_an_address_is_its_own_name_and_everywhere_is_none() -> None:
    assert "10.1.2.3" in names_of("10.1.2.3")
    assert not {"0.0.0.0", "::"} & (names_of("0.0.0.0") | names_of("::"))
    assert (
        is_loopback("127.8.8.8")
        and is_loopback("::1")
        and not is_loopback("0.0.0.0")
        and not is_loopback("evil.example")
    )


def test_what_is_too_large_is_not_read(served: tuple[int, Recorder]) -> None:
    port, application = served
    assert ask(port, "POST", body=b"x" * LARGEST).text == str(LARGEST)
    chunk = b"200\r\n" + b"x" * 0x200 + b"\r\n"
    chunked = [("Transfer-Encoding", "chunked")]
    assert ask(port, "POST", headers=chunked, body=chunk + b"0\r\n\r\n").text == str(0x200)
    for answer in (
        ask(port, "POST", body=b"x" * (LARGEST + 1)),
        ask(port, "POST", headers=[("Content-Length", "9" * 15)]),
        ask(port, "POST", headers=chunked, body=chunk + chunk),  # 1024 bytes, and no end
    ):
        assert (answer.status, answer.text) == (413, "A request may have 1,000 bytes at most.\n")
    assert application.reached == ["http"] * 2


def test_pages_may_load_nothing_and_stand_in_no_frame_unless_the_application_says_so(
    served: tuple[int, Recorder],
) -> None:
    port, _ = served
    headers = ask(port).headers
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "frame-ancestors 'none'" in headers["content-security-policy"]
    )
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == (
        "nosniff",
        "no-referrer",
    )
    assert ask(port, path="/own").headers["referrer-policy"] == "origin"

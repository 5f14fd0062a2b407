"""Every server that a command starts stands behind the door (tests/tasks/servers/test_door.py has
the rule): Prefect's, the one inside a run, that of the metrics, of a model, and the labelling page.
Each is a real one, in a process of its own but for the page."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from dapflow.tasks.judging.judges.desk.server import Desk, serve
from tests.helpers.lakes import empty_lake
from tests.helpers.processes import free_port
from tests.helpers.raw import UPGRADE, ask, wait_for
from tests.helpers.toy import dapflow

pytestmark = pytest.mark.timeout(600)
WHO_CAN = "Every user of this machine can reach it: set DAPFLOW_UI_PASSWORD"


@contextmanager
def process(folder: Path, port: int, *words: str, **environment: str) -> Iterator[psutil.Popen]:
    """Our own Python with these words, once it listens; it ends with the block. What it prints is
    in PORT.log of the folder.
    """
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "DAPFLOW"))
    }
    own = {"PREFECT_HOME": str(folder / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    own |= {"PYTHONUNBUFFERED": "1"}
    with (folder / f"{port}.log").open("w") as printed:
        child = psutil.Popen(
            [sys.executable, "-P", *words], env=clean | own | environment, stdout=printed
        )
    try:
        wait_for(port)
        yield child
    finally:
        child.terminate()
        child.wait(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doors")
    empty_lake(root / "lake")
    return root


@pytest.fixture(scope="module")
def ui(folder: Path) -> Iterator[int]:
    """`dapflow ui`, which answers to one more name."""
    port = free_port()
    command = [
        "-m",
        "dapflow.flows.cli.main",
        "ui",
        "--port",
        str(port),
        "--lake",
        str(folder / "lake"),
        "--allow-host",
        "gpu.example",
    ]
    with process(folder, port, *command):
        yield port


@pytest.fixture(scope="module")
def inside(folder: Path) -> Iterator[int]:
    """What Prefect starts inside a run, whichever call of its starts it."""
    home = folder / "inside"
    home.mkdir()
    code = (
        "import sys, time; from dapflow.flows.server.run_server import put_behind_the_door; put_behind_the_door()\n"
        "from prefect.server.api.server import SubprocessASGIServer\n"
        "server = SubprocessASGIServer(int(sys.argv[1])); server.start(120); time.sleep(600)"
    )
    port = free_port()
    with process(home, port, "-c", code, str(port)) as child:
        yield port
        for server in child.children():
            server.terminate()


@pytest.fixture(scope="module")
def metrics(folder: Path) -> Iterator[int]:
    """`dapflow metrics --port`."""
    port = free_port()
    with process(
        folder,
        port,
        "-m",
        "dapflow.flows.cli.main",
        "metrics",
        "--port",
        str(port),
        "--lake",
        str(folder / "lake"),
    ):
        yield port


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[int]:
    """`dapflow serve`."""
    port = free_port()
    with process(
        folder,
        port,
        "-m",
        "dapflow.flows.cli.main",
        "serve",
        "toy",
        "--port",
        str(port),
        "--lake",
        str(folder / "lake"),
        HF_HUB_OFFLINE="1",
    ):
        yield port


@pytest.fixture(scope="module")
def label() -> Iterator[int]:
    """The labelling page."""
    with serve(Desk(host="127.0.0.1", port=0)) as desk:
        yield desk.port


SURFACES = {
    "ui": "/api/health",
    "inside": "/api/health",
    "metrics": "/metrics",
    "model": "/health",
    "label": "/page.css",
}
FOREIGN = [
    [("Host", "evil.example")],
    [("Host", "127.0.0.1:1"), ("Origin", "http://evil.example")],
    [("Host", "127.0.0.1:1"), ("Origin", "null")],
    [("Host", "127.0.0.1:1"), ("Origin", "http://127.0.0.1:2")],
    [("Host", "127.0.0.1:1"), ("Sec-Fetch-Site", "cross-site")],
    [("Host", "127.0.0.1"), ("Host", "evil.example")],
    [],
]


@pytest.mark.parametrize("surface", SURFACES)
def test_every_server_answers_its_own_pages_and_no_others(
    surface: str, request: pytest.FixtureRequest
) -> None:
    port, path = request.getfixturevalue(surface), SURFACES[surface]
    for headers in FOREIGN:
        for method in ("GET", "POST"):
            answer = ask(
                port, method, path, headers, b"{}" if method == "POST" else b"", host=False
            )
            assert answer.status in (
                (403,) if len([name for name, _ in headers if name == "Host"]) == 1 else (400, 403)
            ), (headers, method)
    for name in (f"127.0.0.1:{port}", f"localhost:{port}"):
        answer = ask(
            port,
            "GET",
            path,
            [("Host", name), ("Origin", f"http://{name}"), ("Sec-Fetch-Site", "same-origin")],
            host=False,
        )
        assert answer.status == 200, name
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("surface", ["ui", "inside"])
@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
def test_websockets_open_for_programs_and_not_for_other_sites(
    surface: str, origin: str | None, request: pytest.FixtureRequest
) -> None:
    headers = [*UPGRADE, *([("Origin", origin)] if origin else [])]
    assert ask(request.getfixturevalue(surface), path="/api/events/in", headers=headers).status == (
        403 if origin else 101
    )


@pytest.mark.parametrize("surface", ["ui", "inside"])
def test_a_page_cannot_have_a_run_made_whatever_it_calls_what_it_sends(
    surface: str, request: pytest.FixtureRequest
) -> None:
    port, body = request.getfixturevalue(surface), b'{"name": "night"}'
    for kind in ([], [("Content-Type", "text/plain")], [("Content-Type", "application/json")]):
        assert (
            ask(
                port, "POST", "/api/flows/", [*kind, ("Origin", "http://evil.example")], body
            ).status
            == 403
        )
        assert (
            ask(
                port, "POST", "/api/flows/filter", [("Content-Type", "application/json")], b"{}"
            ).text
            == "[]"
        )


def test_a_name_that_the_operator_has_named_comes_in(ui: int) -> None:
    headers = [("Host", f"gpu.example:{ui}"), ("Origin", f"http://gpu.example:{ui}")]
    assert ask(ui, path="/api/health", headers=headers, host=False).status == 200


def test_who_calls_it_by_another_name_is_told_why_it_refuses(ui: int) -> None:
    class Elsewhere(BaseHTTPRequestHandler):  # a name that leads here
        def do_GET(self) -> None:
            answer = ask(ui, path=self.path, headers=[("Host", "server:4200")], host=False)
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.text.encode())

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        command = [
            sys.executable,
            "-P",
            "-m",
            "dapflow.flows.cli.main",
            "worker",
            "--server",
            f"http://127.0.0.1:{server.server_port}/api",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        server.shutdown()
        thread.join()
    assert done.returncode == 2
    assert (
        "refuses: This server does not answer to the name server: if the name is yours, start it with --allow-host server"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("surface", "size"), [("ui", 17), ("inside", 17), ("model", 2), ("metrics", 2)]
)
def test_what_is_too_large_is_refused_before_it_is_read(
    surface: str, size: int, request: pytest.FixtureRequest
) -> None:
    headers = [("Content-Type", "application/json"), ("Content-Length", str(size * 2**20))]
    answer = ask(request.getfixturevalue(surface), "POST", "/v1/chat/completions", headers)
    assert (answer.status, "bytes at most" in answer.text) == (413, True)


def test_pages_of_the_ui_load_from_their_own_server_alone(ui: int) -> None:
    policy = ask(ui, path="/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    settings = ask(ui, path="/ui-settings").text
    assert '"api_url":"/api"' in settings  # by whichever of its names the browser came


@pytest.mark.parametrize(
    "path",
    [
        "/lineage/" + "a" * 300,
        "/lineage/%C2%B2",
        "/reports/" + "a" * 300,
        "/lineage/a%00b",
        "/reports/%00",
    ],
)
def test_addresses_of_pages_that_cannot_be_are_not_there(ui: int, path: str) -> None:
    assert ask(ui, path=path).status == 404


def test_a_server_without_a_password_says_who_can_reach_it_and_one_with_a_password_asks_for_it(
    folder: Path, ui: int, tmp_path: Path
) -> None:
    assert statuses(ui) == (200, 200)
    assert WHO_CAN in (folder / f"{ui}.log").read_text()
    port = free_port()
    command = ["-m", "dapflow.flows.cli.main", "ui", "--port", str(port)]
    lake = ["--lake", str(tmp_path / "lake")]
    with process(tmp_path, port, *command, *lake, DAPFLOW_UI_PASSWORD="sesame"):
        assert statuses(port) == (401, 200)
    assert WHO_CAN not in (tmp_path / f"{port}.log").read_text()


def statuses(port: int) -> tuple[int, int]:
    """Of a question without a password, and with the right one."""
    asked = [("Content-Type", "application/json")]
    right = ("Authorization", "Basic ZGFwZmxvdzpzZXNhbWU=")
    without, with_it = (
        ask(port, "POST", "/api/flows/filter", headers, b"{}").status
        for headers in (asked, [*asked, right])
    )
    return without, with_it


@pytest.mark.parametrize("command", ["ui", "metrics", "label"])
def test_a_name_that_is_none_is_said(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty_lake(tmp_path / "lake")
    code, _, err = dapflow(
        command,
        "--port",
        str(free_port()),
        "--allow-host",
        "http://gpu",
        "--lake",
        str(tmp_path / "lake"),
        capsys=capsys,
    )
    assert (code, "name a host alone" in err) == (2, True)

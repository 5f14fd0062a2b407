"""What `dapflow deploy` refuses at once, so that no night stumbles over it, and what `doctor`,
`resume` and `ui` say where something is missing.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from dapflow.flows.cli.main import main
from dapflow.flows.cli.nights.deploy import describe
from dapflow.flows.cli.nights.resume import doctor, resume
from dapflow.flows.cli.nights.server import POOL
from dapflow.flows.cli.nights.worker import check_pool
from dapflow.flows.server.environment import of_server
from dapflow.storage import Lake
from dapflow.storage.errors import UserError


@pytest.mark.parametrize(
    ("cron", "timezone", "settings", "said"),
    [
        ("99 1 * * *", None, (), r"--cron 99 1 \* \* \*: .* as in crontab"),
        (None, "Mars/Olympus", (), "--timezone Mars/Olympus: .* Europe/Berlin"),
        (None, None, ("no_key=1",), "no_key"),
        (None, None, ("sampling.n=many",), "sampling.n"),
    ],
)
def test_what_a_night_would_stumble_over_is_refused(
    cron: str | None, timezone: str | None, settings: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        describe(None, ("rso",), cron, timezone, str(tmp_path), settings, True)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file .*none.yaml"):
        describe(tmp_path / "none.yaml", ("rso",), None, None, str(tmp_path), (), True)


def test_only_the_schedules_of_the_recipes_asked_for_are_on(tmp_path: Path) -> None:
    described = describe(
        None, ("rso-hinge",), "0 2 * * *", "Europe/Berlin", str(tmp_path), ("sampling.n=4",), True
    )
    on = {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "active": True}
    assert {one["name"]: one["schedules"] for one in described["deployments"]} == {
        "rso": [on | {"active": False}],
        "rso-hinge": [on],
        "sft-sample-rank": [on | {"active": False}],
    }


@pytest.mark.parametrize("command", [doctor, resume])
def test_who_looks_after_a_lake_makes_none(
    command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(UserError, match="There is no lake"):
        command(lake=str(tmp_path / "typo"))  # type: ignore[operator]
    assert not (tmp_path / "typo").exists()


def test_a_port_that_is_taken_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [
            sys.executable,
            "-m",
            "dapflow.flows.cli.main",
            "ui",
            "--port",
            port,
            "--lake",
            str(tmp_path / "lake"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        f"Nothing can listen on 127.0.0.1:{port} (Address already in use): choose another --port."
        in done.stderr
    )
    assert not (tmp_path / "lake").exists()


def test_a_port_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("ui", "metrics"):
        with pytest.raises(SystemExit, match="2"):
            main([command, "--port", "99999"])
        assert "65535" in capsys.readouterr().err


@pytest.fixture
def locked() -> Iterator[str]:
    """The API of a server that asks for a password, as Prefect's does: everybody may ask for its
    health, and for nothing else.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 401)
            self.send_header("content-length", "4")
            self.end_headers()
            self.wfile.write(b"true")

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (["worker"], ["deploy", "--toy"])
        ),
    ],
)
def test_a_server_that_asks_for_a_password_is_a_sentence(
    command: list[str], lake: Lake, locked: str
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT")
    }
    environment |= {
        "PREFECT_API_URL": locked,
        "PREFECT_HOME": str(lake.root / "prefect"),
        "DAPFLOW_LAKE": str(lake.root),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dapflow.flows.cli.main", *command],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"dapflow: The Prefect server at {locked} does not let us in: set PREFECT_API_AUTH_STRING=user:password, as it asks for.\n"
    )


def test_a_server_that_does_not_answer_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(httpx.ConnectError) as caught:
        httpx.get("http://127.0.0.1:9/api/flow_runs")
    assert "No Prefect server answers at http://127.0.0.1:9/api" in (of_server(caught.value) or "")
    with pytest.raises(httpx.ConnectError) as caught:
        httpx.get("http://127.0.0.1:10/v1/models")  # of an endpoint that judges
    assert of_server(caught.value) is None


@pytest.mark.usefixtures("prefect_server")
def test_a_worker_for_a_pool_that_is_not_there_does_not_wait_for_ever() -> None:
    with pytest.raises(UserError, match="no work pool typo"):
        check_pool("typo")
    check_pool(POOL)

"""What `dapflow deploy` refuses at once, so that no night stumbles over it, and what `doctor`, `resume` and `ui` say where something is missing."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from flows.deploy import describe
from flows.resume import doctor, resume
from storage.errors import UserError


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
    described = describe(None, ("rso-hinge",), "0 2 * * *", "Europe/Berlin", str(tmp_path), ("sampling.n=4",), True)
    on = {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "active": True}
    assert {one["name"]: one["schedules"] for one in described["deployments"]} == {
        "rso": [on | {"active": False}],
        "rso-hinge": [on],
        "sft-sample-rank": [on | {"active": False}],
    }


@pytest.mark.parametrize("command", [doctor, resume])
def test_who_looks_after_a_lake_makes_none(command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(UserError, match="There is no lake"):
        command(lake=str(tmp_path / "typo"))  # type: ignore[operator]
    assert not (tmp_path / "typo").exists()


def test_a_port_that_is_taken_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "flows.cli", "ui", "--port", port, "--lake", str(tmp_path / "lake")]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"Nothing can listen on 127.0.0.1:{port} (Address already in use): choose another --port." in done.stderr
    assert not (tmp_path / "lake").exists()


def test_a_port_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("ui", "metrics"):
        with pytest.raises(SystemExit, match="2"):
            main([command, "--port", "99999"])
        assert "65535" in capsys.readouterr().err

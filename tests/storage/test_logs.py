"""Structured logs: a JSON object a line, to a file or to standard error."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapflow.storage import Lake, UserError, logs
from dapflow.storage.runs import record_run


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    logs._set_up.cache_clear()
    logs._set_up(None)


def test_a_run_that_fails_leaves_its_ids_and_its_reason(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.VARIABLE, str(tmp_path / "log.jsonl"))
    with pytest.raises(RuntimeError), record_run(lake, "4711", "rso", {}):
        raise RuntimeError('no more "room"\nat all')
    first, second = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (first["event"], first["level"], first["run"], first["recipe"]) == (
        "run.started",
        "info",
        "4711",
        "rso",
    )
    assert (second["event"], second["level"], second["run"]) == ("run.failed", "warning", "4711")
    assert second["note"] == 'RuntimeError: no more "room"\nat all'
    assert first["time"] <= second["time"]


def test_standard_error_is_another_place_and_without_the_variable_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv(logs.VARIABLE, raising=False)
    logs.log("step.done", version="3f9c01")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv(logs.VARIABLE, "stderr")
    logs.log("step.done", version="3f9c01", rows=3, note=None)
    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert captured.out == ""
    assert {key: line[key] for key in ("event", "version", "rows")} == {
        "event": "step.done",
        "version": "3f9c01",
        "rows": 3,
    }
    assert "note" not in line


def test_a_program_around_it_gets_the_records_by_the_logger(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(logs.VARIABLE, raising=False)
    logs._set_up.cache_clear()
    with caplog.at_level(logging.INFO, "dapflow"):
        logs.log("step.cached", version="3f9c01")
    [record] = [one for one in caplog.records if one.name == "dapflow"]
    assert (record.getMessage(), record.__dict__["dapflow"]) == (
        "step.cached",
        {"version": "3f9c01"},
    )


def test_a_file_that_cannot_be_written_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.VARIABLE, str(tmp_path / "nowhere" / "log.jsonl"))
    with pytest.raises(UserError, match="`stderr`, or a file that can be written"):
        logs.log("step.done")

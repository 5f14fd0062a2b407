"""A figure that cannot be had is a value of its own, with its reason: a run whose judge decides nothing ends well, and everything says why."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.night import RecipeName, night
from tests.flows.test_run import SMALL, dapflow

SETTINGS = ("evaluation.probes=0", "evaluation.exact.source=", "training.epochs=1")
WHY = "no held-out prompt was judged on both sides (12 of 12 verdicts: ValueError: nobody knows)"


@pytest.fixture(params=["score", "compare"])
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A judge, scoring or comparing, that fails on every answer."""
    arguments = {"score": "prompt, completion", "compare": "prompt, first, second"}[request.param]
    file = tmp_path / "judge.py"
    file.write_text(f"def judge({arguments}):\n    raise ValueError('nobody knows')\n")
    return f"evaluation.judge={file}:judge"


@pytest.mark.usefixtures("prefect_server")
def test_no_win_rate_is_a_figure_with_its_reason_everywhere(judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = (
        WHY if "completion)" in Path(judge.removeprefix("evaluation.judge=").removesuffix(":judge")).read_text() else WHY.replace("12", "6")
    )
    lake = ("--lake", str(tmp_path / "lake"))
    settings = [word for one in (*SMALL[1::2], *SETTINGS, judge) for word in ("--set", one)]
    code, out, err = dapflow("run", "rso", "--toy", *lake, *settings, capsys=capsys)
    assert code == 0, err
    assert "cannot tell: no held-out prompt was judged on both sides" in out
    code, out, _ = dapflow("run", "rso", "--toy", "--json", *lake, *settings, capsys=capsys)
    [one] = json.loads(out.splitlines()[-1])["iterations"]
    assert (code, one["win_rate"], one["win_rate_low"], one["judged_prompts"]) == (0, None, None, 0)
    figures: dict[str, dict[str, Any]] = {row["name"]: row for row in one["metrics"]}
    assert {figures[name]["note"] for name in ("win_rate", "win_rate_vs_initial", "length_controlled_win_rate")} == {why}
    assert all(row["value"] is not None or row["note"] for row in one["metrics"])
    assert f"There is no win rate: {why}." in Path(one["report"]).read_text().replace("&#39;", "'")
    code, out, _ = dapflow("report", "--json", *lake, capsys=capsys)
    outcome = json.loads(out)["runs"][0]["iterations"][0]["outcome"]
    assert (code, outcome["verdict"], outcome["sentence"]) == (0, "cannot tell", f"There is no win rate: {why}.")
    code, out, _ = dapflow("report", *lake, capsys=capsys)
    assert (code, "CANNOT TELL" in out) == (0, True)
    code, out, _ = dapflow("compare-runs", one["policy"], one["policy"], "--html", str(tmp_path / "compare.html"), *lake, capsys=capsys)
    assert (code, "nothing to test. Of A: no held-out prompt" in " ".join(out.split())) == (0, True)


@pytest.mark.usefixtures("prefect_server")
def test_a_night_without_a_win_rate_closes_the_gate_and_says_why(judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = night(RecipeName("rso"), (*SMALL[1::2], *SETTINGS, judge, "gate.invalid_rate="), True, str(tmp_path / "lake"))
    assert row["action"] == "keep"
    assert row["reason"].startswith(
        "win_rate (low end of its interval) was not measured, for no held-out prompt was judged on both sides ("
    )
    code, out, _ = dapflow("policies", "--lake", str(tmp_path / "lake"), capsys=capsys)
    assert (code, "was not measured, for no held-out prompt" in " ".join(out.split())) == (0, True)

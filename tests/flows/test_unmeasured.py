"""A figure that cannot be had is a value of its own, with its reason: a run whose judge decides
nothing ends well, and everything says why.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.night import RecipeName, night
from tests.helpers.toy import BY_LENGTH, dapflow, words

NONE = "no held-out prompt was judged on both sides ("


def flat(out: str) -> str:
    """What was printed, without the lines and borders of the terminal."""
    return " ".join(out.replace("│", " ").split())


def failing(tmp_path: Path, arguments: str) -> str:
    """The setting of a judge that fails on every answer."""
    file = tmp_path / "judge.py"
    file.write_text(f"def judge({arguments}):\n    raise ValueError('nobody knows')\n")
    return f"evaluation.judge={file}:judge"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    "arguments",
    ["prompt, completion", pytest.param("prompt, first, second", marks=pytest.mark.slow)],
)
def test_no_win_rate_is_a_figure_with_its_reason_everywhere_and_closes_the_gate_of_a_night(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, judge = ("--lake", str(tmp_path / "lake")), failing(tmp_path, arguments)
    row = night(RecipeName("rso"), (*BY_LENGTH, judge, "gate.invalid_rate="), True, lake[1])
    assert row["action"] == "keep"
    assert row["reason"].startswith(
        f"win_rate (low end of its interval) was not measured, for {NONE}"
    )
    code, out, err = dapflow("policies", *lake, capsys=capsys)
    assert (code, "was not measured" in flat(out)) == (0, True), out + err
    settings = words(*BY_LENGTH, judge)
    code, out, err = dapflow("run", "rso", "--toy", *lake, *settings, capsys=capsys)
    assert code == 0, err
    assert f"cannot tell: {NONE}" in flat(out)
    code, out, _ = dapflow("run", "rso", "--toy", "--json", *lake, *settings, capsys=capsys)
    [one] = json.loads(out.splitlines()[-1])["iterations"]
    assert (code, one["win_rate"], one["win_rate_low"], one["judged_prompts"]) == (0, None, None, 0)
    figures: dict[str, dict[str, Any]] = {row["name"]: row for row in one["metrics"]}
    assert all(row["value"] is not None or row["note"] for row in one["metrics"])
    [why] = {
        figures[name]["note"]
        for name in ("win_rate", "win_rate_vs_initial", "length_controlled_win_rate")
    }
    assert why.startswith(NONE) and "verdicts: ValueError: nobody knows" in why
    sentence = f"There is no win rate: {why}."
    assert sentence in Path(one["report"]).read_text()
    code, out, _ = dapflow("report", "--json", *lake, capsys=capsys)
    outcome = json.loads(out)["runs"][0]["iterations"][0]["outcome"]
    assert (code, outcome["verdict"], outcome["sentence"]) == (0, "cannot tell", sentence)
    code, out, _ = dapflow("report", *lake, capsys=capsys)
    assert (code, f"CANNOT TELL There is no win rate: {NONE}" in flat(out)) == (0, True)
    page = tmp_path / "compare.html"
    code, out, _ = dapflow(
        "compare-runs", one["policy"], one["policy"], "--html", str(page), *lake, capsys=capsys
    )
    assert (code, f"nothing to test. Of A: {NONE}" in flat(out)) == (0, True)
    assert f"Of B: {why}." in page.read_text()

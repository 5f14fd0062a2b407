"""`dapflow compare-runs`: the paired test, the prompts that flipped, and what differs. `high` wins
36 of the 40 prompts of which `level` wins 22.
"""

import json
from pathlib import Path

import pytest

from dapflow.flows.report.compare import compare
from dapflow.flows.report.drawing.page import compare_page
from dapflow.flows.report.find import find
from dapflow.storage import Lake
from tests.helpers.evaluated import run
from tests.helpers.pages import Read
from tests.helpers.toy import dapflow


def test_the_paired_difference_and_the_flips_are_those_of_the_prompts(measured: Lake) -> None:
    found = compare(measured, find(measured, "level")[0], find(measured, "high")[0])
    outcome = found["outcome"]
    assert outcome["prompts_both"] == 40
    assert outcome["difference"] == pytest.approx((36 - 22) / 40)
    assert outcome["difference_low"] > 0.15
    # the same judge scored both: high's answer is better on the 14 prompts that only it won, worse
    # on none, level on the rest
    assert outcome["meeting"] == pytest.approx((14 + 26 / 2) / 40)
    assert outcome["verdict"] == "better"
    assert (outcome["flipped_to_win"], outcome["flipped_to_loss"]) == (14, 0)
    assert len(found["flipped"]) == 12
    assert {(one["why"], one["win_a"], one["win_b"]) for one in found["flipped"]} == {
        ("B wins, A lost", 0.0, 1.0)
    }


def test_swapping_the_runs_swaps_the_outcome(measured: Lake) -> None:
    level, high = find(measured, "level")[0], find(measured, "high")[0]
    one, two = (compare(measured, *sides)["outcome"] for sides in ((level, high), (high, level)))
    assert one["difference"] == pytest.approx(-two["difference"])
    assert one["meeting"] == pytest.approx(1 - two["meeting"])
    assert (one["verdict"], two["verdict"]) == ("better", "worse")
    assert one["flipped_to_win"] == two["flipped_to_loss"]


def test_a_run_against_itself_differs_in_nothing(measured: Lake) -> None:
    [one] = find(measured, "level")
    found = compare(measured, one, one)
    assert (
        found["outcome"]["difference"],
        found["outcome"]["meeting"],
        found["outcome"]["verdict"],
    ) == (0.0, 0.5, "cannot tell")
    assert not (found["parameters"] or found["code"] or found["software"] or found["flipped"])
    assert all(row["same"] for row in found["inputs"])


def test_what_differs_is_named(measured: Lake) -> None:
    found = compare(measured, find(measured, "level")[0], find(measured, "high")[0])
    assert found["parameters"] == [
        {"key": "loss.name", "a": "sigmoid_norm", "b": "hinge_norm"},
        {"key": "seed", "a": None, "b": 3},
    ]
    assert {row["part"]: row["same"] for row in found["inputs"]} == {
        "prompts": False, "held_out": True, "init": True, "completions": False, "pairs": False
    }  # fmt: skip


def test_a_figure_of_before_is_told_from_that_of_after(
    measured: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = dapflow(
        "compare-runs", "better", "better", "--lake", str(measured.root), capsys=capsys
    )
    assert code == 0, err
    [found] = find(measured, "better")
    seen = " ".join(Read(compare_page(compare(measured, found, found))).seen)
    assert "novelty, before" in seen and "novelty, after" in seen
    assert out.count("novelty,") == 2  # the rest may stand on a line of its own


def test_two_that_different_judges_measured_are_told_why_no_answer_meets_another(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    run(lake, "one", compared=True)
    _, out, _ = dapflow("compare-runs", "one", "one", "--lake", str(lake.root), capsys=capsys)
    assert "there is no score of both" in " ".join(out.replace("│", "").split())


def test_runs_without_a_prompt_in_common_cannot_be_told_apart(measured: Lake) -> None:
    outcome = compare(measured, find(measured, "level")[0], find(measured, "worse")[0])["outcome"]
    assert (outcome["verdict"], outcome["prompts_both"]) == ("cannot tell", 0)
    assert "nothing to test" in outcome["sentence"]


def test_the_command_prints_text_or_json_and_writes_a_page_that_loads_nothing(
    measured: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--lake", str(measured.root))
    code, out, err = dapflow(
        "compare-runs", "level", "high", "--html", str(tmp_path / "c.html"), *where, capsys=capsys
    )
    assert code == 0, err
    assert "B BETTER" in out
    assert "loss.name" in out
    read = Read((tmp_path / "c.html").read_text())
    assert read.tags.isdisjoint({"script", "link", "img"})
    assert not read.addresses
    code, out, _ = dapflow("compare-runs", "level", "high", "--json", *where, capsys=capsys)
    assert json.loads(out)["outcome"]["verdict"] == "better"
    assert "B is worse" in compare_page(
        compare(measured, find(measured, "high")[0], find(measured, "level")[0])
    )

"""`dapflow report`: what it says about a run, in the terminal, as JSON, and as a page that loads
nothing and believes nothing it shows.
"""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapflow.flows.report.account import warnings
from dapflow.flows.report.compare import compare
from dapflow.flows.report.drawing import svg
from dapflow.flows.report.drawing.page import page
from dapflow.flows.report.drawing.words import marked
from dapflow.flows.report.find import find
from dapflow.flows.report.gather import by_length, gather, report_of
from dapflow.flows.report.outcome import sentence_of
from dapflow.storage import Lake, UserError
from dapflow.tasks.statistics import wilson
from tests.helpers.evaluated import HOSTILE, run
from tests.helpers.lakes import ids, named, write
from tests.helpers.pages import Read
from tests.helpers.toy import SMALL, dapflow, words


def told(lake: Lake, name: str, shown: int = 12) -> dict[str, Any]:
    """The report of a run's only iteration."""
    [found] = find(lake, name)
    return report_of(lake, found, shown)


def test_the_outcome_comes_first_and_counts_the_prompts(measured: Lake) -> None:
    [night] = gather(measured, ["better"])
    [one] = night["iterations"]
    outcome = one["outcome"]
    assert (outcome["verdict"], outcome["win_rate"], outcome["judged_prompts"]) == (
        "better",
        0.75,
        100,
    )
    assert 0.5 < outcome["win_rate_low"] < 0.75 < outcome["win_rate_high"] < 1
    assert night["command"] == "dapflow run rso --toy"
    assert {"python", "torch", "prefect"} <= night["software"].keys()
    text = page([night])
    assert (
        text.index("▲ Better")
        < text.index("Examples")
        < text.index("What was left out")
        < text.index("Do it again")
    )


@pytest.mark.parametrize(
    ("name", "verdict"), [("high", "better"), ("level", "cannot tell"), ("worse", "worse")]
)
def test_the_verdict_follows_the_interval(measured: Lake, name: str, verdict: str) -> None:
    assert told(measured, name)["outcome"]["verdict"] == verdict


def test_an_open_outcome_says_how_many_prompts_would_settle_it(measured: Lake) -> None:
    # of 22 wins in 40 the variance is 40 / 39 * 0.55 * 0.45; half the 95 % interval 1.96 * 0.5038 /
    # sqrt(n), 0.05 at n = 390.03
    assert (
        "about 391 prompts that spread like these; there were 40"
        in told(measured, "level")["outcome"]["sentence"]
    )
    # a quarter of the prompts tie: that is how much less they spread
    wins = [1.0] * 16 + [0.5] * 10 + [0.0] * 14
    spread = sentence_of("cannot tell", 40, 0.525, 0.39, 0.66, stdev(wins))
    assert "about 1,179 prompts that spread like these" in spread  # 1.96 * 0.43789 / 0.025, squared
    assert "at most 1,537 prompts; there were 40" in sentence_of(
        "cannot tell", 40, 0.525, 0.39, 0.66, None
    )
    assert sentence_of("cannot tell", 1, 1.0, 0.0, 1.0, None).endswith(
        "One prompt says nothing about others."
    )


def test_examples_gained_lost_and_middle_with_both_answers(measured: Lake) -> None:
    examples = told(measured, "better", shown=3)["examples"]
    assert [(one["why"], one["change"]) for one in examples] == [
        ("gained most", 1.0),
        ("lost most", -1.0),
        ("in the middle", 1.0),
    ]
    assert examples[0]["before"] == "the before answer of better to question 0 "
    assert (examples[0]["before_tokens"], examples[0]["after_tokens"], examples[0]["prompt"]) == (
        5.0,
        10.0,
        "held-out question 0? ",
    )


def test_a_judge_that_compares_both_answers_is_read_as_well(lake: Lake) -> None:
    run(lake, "night", prompts=8, wins=0.25, compared=True)
    one = told(lake, "night", shown=2)
    # a probability of 0.9 that the new answer is better: 2 * 0.9 - 1
    assert [
        (example["why"], example["win"], round(example["change"], 6)) for example in one["examples"]
    ] == [
        ("gained most", 1.0, 0.8),
        ("lost most", 0.0, -0.4),
    ]
    assert [
        judge["judge"] for judge in one["judges"] if judge["role"] == "measured the result"
    ] == ["program"]
    assert "judged +0.80" in page(gather(lake, ["night"]))


def test_what_was_left_out_is_counted_with_its_reason(measured: Lake) -> None:
    stages = {stage["part"]: stage for stage in told(measured, "level")["stages"]}
    training = ["prompts", "completions", "verdicts", "acceptances", "pairs"]
    assert list(stages) == [
        *training,
        "held_out",
        "before",
        "after",
        "judged_before",
        "judged_after",
    ]
    assert (stages["completions"]["rows"], stages["completions"]["kept"]) == (16, 16)
    assert stages["pairs"]["dropped"] == [{"why": "tie", "rows": 1, "note": None}]
    assert stages["pairs"]["kept"] == 3


@pytest.mark.parametrize(("consistent", "sentences"), [(0, 1), (5, 1), (12, 0), (20, 0)])
def test_a_judge_that_goes_by_the_place_is_warned_of(consistent: int, sentences: int) -> None:
    low, high = wilson(consistent, 20)
    figure = {"name": "position_consistency", "value": consistent / 20, "low": low, "high": high}
    told = [{"role": "measured the result", "judge": "j", "name": "referee", "figures": [figure]}]
    said = warnings(told, {}, judged=5, held_out=5, known=0)
    assert len(said) == sentences
    assert all(
        f"referee named the same answer in both orders in {consistent / 20:.0%}" in one
        for one in said
    )


def test_what_the_evaluation_left_out_is_counted_and_no_part_of_the_report(lake: Lake) -> None:
    made = run(lake, "night", prompts=40, wins=0.5)
    [found] = find(lake, "night")
    known = ids(found.parts["held_out"], 40)[
        :5
    ]  # five of the prompts that were won are in training
    version = named("overlap")
    rows = pa.table(
        {
            "id": ids(version, 5),
            "subject": known,
            "name": ["overlap_13gram"] * 5,
            "value": [1.0] * 5,
        }
    )
    write(lake, "metrics", version, "find_overlap", rows, {"held_out": made["held_out"]})
    found = replace(found, parts={**found.parts, "overlap": version})
    one = report_of(lake, found)
    stages = {stage["part"]: stage for stage in one["stages"]}
    assert (stages["held_out"]["rows"], stages["held_out"]["kept"]) == (40, 35)
    assert stages["held_out"]["dropped"] == [
        {"why": "known from training", "rows": 5, "note": None}
    ]
    assert one["warnings"] == [
        "5 of 40 held-out prompts are too like training prompts to count: they are left out."
    ]
    assert len(one["scores"]["after"]) == 35
    assert {
        example["prompt_id"] for example in report_of(lake, found, shown=40)["examples"]
    }.isdisjoint(known)
    both = compare(lake, found, found)["outcome"]
    assert (both["prompts_both"], both["win_rate_a"]) == (35, pytest.approx(15 / 35))


def test_a_curve_of_any_number_has_a_style_and_a_name_within_the_picture() -> None:
    names = [f"recipe number {n}" for n in range(11)]
    drawn = str(
        svg.lines(
            {name: [(0.0, n), (1.0, n + 1)] for n, name in enumerate(names)}, "x", "y", dots=True
        )
    )
    css = (Path(svg.__file__).parent / "templates" / "style.css").read_text("utf-8")
    assert all(f"svg .{one} {{ stroke:" in css for one in set(re.findall(r"\bs\d+\b", drawn)))
    top = int(re.findall(r'viewBox="0 (-?\d+)', drawn)[0])
    places = [
        (float(x), float(y))
        for x, y in re.findall(r'class="name" x="([\d.]+)" y="(-?[\d.]+)"', drawn)
    ]
    assert len(places) == 11 and len(set(places)) == 11
    assert all(x + 6.4 * 16 <= 360 and y - 12 >= top for x, y in places)


def test_spans_of_lengths_stand_beside_each_other() -> None:
    drawn = str(
        svg.columns(
            [(f"+{n}00 to +{n}99", 0.5, 0.4, 0.6) for n in range(1, 6)], "tokens", "win rate"
        )
    )
    ticks = re.findall(r'class="tick" x="([\d.]+)" y="\d+" text-anchor="middle">([^<]+)<', drawn)
    assert [text for _, text in ticks[:2]] == ["+100", "to +199"]
    places = sorted({float(x) for x, _ in ticks})
    assert min(b - a for a, b in pairwise(places)) > 5.5 * max(len(text) for _, text in ticks)


def test_a_metric_nobody_has_heard_of_is_shown(measured: Lake) -> None:
    seen = " ".join(Read(page(gather(measured, ["better"]))).seen)
    assert re.search(r"novelty\s+0\.25\s+0\.5\s", seen)
    assert re.search(r"surprise\s+12\.5\s", seen)


def test_longer_answers_are_a_warning(measured: Lake) -> None:
    assert any("grown by 100%" in said for said in told(measured, "better")["warnings"])
    assert not told(measured, "level")["warnings"]


def test_a_judge_that_measures_what_it_has_taught_is_a_warning_also_where_no_verdicts_are_left_to_show_it(
    lake: Lake,
) -> None:
    run(
        lake, "rounds", more={"same_judge": 1.0}
    )  # such as of a method that labels before each of its steps, or of a panel's member
    run(lake, "apart", more={"same_judge": 0.0})
    assert any(
        "also labelled the training pairs" in said for said in told(lake, "rounds")["warnings"]
    )
    assert not told(lake, "apart")["warnings"]


def test_a_page_loads_nothing_and_runs_nothing_that_it_shows(measured: Lake) -> None:
    text = page(gather(measured, ["worse"]))
    read = Read(text)
    assert read.tags.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "form", "base", "input"}
    )
    assert not read.handlers
    assert all(address.startswith("#") and address[1:] in read.ids for address in read.addresses)
    assert HOSTILE in "".join(read.seen)  # shown as it is
    assert not re.search(r"https?://|url\(|@import", text)


def test_equally_long_answers_stand_in_one_group() -> None:
    rows = [
        {"before_tokens": 5, "after_tokens": 5 + longer, "win": win}
        for longer in (0, 0, 0, 3)
        for win in (1.0, 0.0)
        for _ in range(10)
    ]
    assert [
        (one["least"], one["most"], one["prompts"], one["win_rate"]) for one in by_length(rows)
    ] == [(0, 0, 60, 0.5), (3, 3, 20, 0.5)]


def test_a_run_is_named_by_newest_its_beginning_or_its_policy(measured: Lake) -> None:
    [found] = find(measured, "hig")
    assert [
        one.policy
        for one in (*find(measured, found.policy[:9]), *find(measured, f"models@{found.policy}"))
    ] == [found.policy] * 2
    assert (found.run or {})["run"] == "high"
    assert find(measured, "newest")[0].label == "rso 1"
    assert (find(measured, "newest")[0].run or {})["run"] == "worse"


def test_what_cannot_be_reported_is_a_sentence(measured: Lake, lake: Lake) -> None:
    with pytest.raises(UserError, match="No run of this lake"):
        find(lake, "newest")
    with pytest.raises(UserError, match="beginning of 4 runs"):
        find(measured, "")
    with pytest.raises(UserError, match="neither a run nor a policy"):
        find(measured, find(measured, "level")[0].parts["pairs"])
    with pytest.raises(UserError, match="Nothing in the lake"):
        find(measured, "zzz")


def test_the_command_prints_text_or_json_and_writes_the_page(
    measured: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--lake", str(measured.root))
    code, out, err = dapflow("report", *where, capsys=capsys)
    assert code == 0, err
    assert "WORSE  10.0% win rate" in out
    assert "</style></script>" in out
    code, out, _ = dapflow(
        "report",
        "high",
        "--html",
        str(tmp_path / "out" / "r.html"),
        "--json",
        *where,
        capsys=capsys,
    )
    made: dict[str, Any] = json.loads(out)
    assert made["html"] == str(tmp_path / "out" / "r.html")
    wanted = {
        "outcome",
        "cost",
        "warnings",
        "judges",
        "examples",
        "metrics",
        "semantics",
        "stages",
        "steps",
    }
    assert wanted <= made["runs"][0]["iterations"][0].keys()
    assert "▲ Better" in (tmp_path / "out" / "r.html").read_text()
    code, _, err = dapflow("report", "nothing", *where, capsys=capsys)
    assert (code, "Nothing in the lake" in err) == (2, True)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_marking_changes_no_text(before: str, after: str) -> None:
    left, right = marked(before, after)
    assert ("".join(text for text, _ in left), "".join(text for text, _ in right)) == (
        before,
        after,
    )


def test_only_the_words_that_differ_are_marked() -> None:
    left, right = marked("a big cat sat", "a small cat sat down")
    assert [text.strip() for text, differs in left if differs] == ["big"]
    assert [text.strip() for text, differs in right if differs] == ["small", "down"]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_leaves_its_report_in_the_lake_and_in_prefect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    settings = (
        *SMALL,
        "evaluation.probes=0",
        "evaluation.exact.source=",
        "evaluation.instructions.prompts=0",
    )  # measured by a reward model, as it labels
    code, out, err = dapflow(
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*settings),
        capsys=capsys,
    )
    assert code == 0, err
    [one] = json.loads(out.splitlines()[-1])["iterations"]
    path = Path(one["report"])
    assert path == tmp_path / "lake" / "reports" / one["policy"] / "index.html"
    read = Read(path.read_text())
    files = {address for address in read.addresses if not address.startswith("#")}
    assert "lineage/index.html" in files
    assert all((path.parent / address).is_file() for address in files)
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["report"]))
        )
    assert any(
        f"](/reports/{one['policy']}/index.html)" in str(artifact.data) for artifact in artifacts
    )
    code, out, _ = dapflow("report", "--json", "--lake", str(tmp_path / "lake"), capsys=capsys)
    assert code == 0
    [again] = json.loads(out)["runs"]
    assert again["command"].startswith("dapflow run rso --toy --set prompts.per_iteration=4")
    assert again["iterations"][0]["outcome"]["win_rate"] == one["win_rate"]
    kept = {stage["part"]: stage["kept"] for stage in again["iterations"][0]["stages"]}
    assert kept["pairs"] == one["pairs"]
    judges = again["iterations"][0]["judges"]
    assert {row["role"] for row in judges} == {"labelled the training pairs", "measured the result"}
    assert "Calibration of reward model on" in " ".join(read.seen)
    [tested] = {
        sum(held["n"] for held in row["reliability"]) for row in judges
    }  # both on the same pairs
    shares = [[held["n"] * held["right"] / tested for held in row["reliability"]] for row in judges]
    told = [
        next(figure["value"] for figure in row["figures"] if figure["name"] == "held_out_accuracy")
        for row in judges
    ]
    assert [sum(share) for share in shares] == pytest.approx(told)

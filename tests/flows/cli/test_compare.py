"""`dapflow compare`: methods side by side on the toy model, what they have in common once; what
each was made of is what its rows say.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.report.find import find
from dapflow.flows.report.gather import report_of
from dapflow.storage import Lake
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE
from dapflow.tasks.prompts.sources import SHIPPED
from tests.helpers.pages import Read
from tests.helpers.toy import QUICK, dapflow

pytestmark = pytest.mark.usefixtures("prefect_server")
SETTINGS = [*QUICK, "rounds.count=3", "rounds.prompts=2"]


def compare(
    lake: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str, Any], str]:
    """The first forty shipped preferences are enough for a toy."""
    few = lake.with_name("few.jsonl")
    few.write_text("".join((SHIPPED / PREFERENCES_FILE).read_text().splitlines(keepends=True)[:40]))
    settings = [f"preferences.source={few}", *SETTINGS]
    code, out, err = dapflow(
        "compare", *settings, *words, "--toy", "--json", "--lake", str(lake), capsys=capsys
    )
    return code, json.loads(out.splitlines()[-1]) if out.strip() else {}, err


def steps(lake: Path, step: str) -> list[dict[str, Any]]:
    with Lake(lake, read_only=True) as opened:
        rows = opened.rows("SELECT version, parameters FROM versions WHERE step = ?", [step])
    return [json.loads(row["parameters"]) | {"version": row["version"]} for row in rows]


@pytest.mark.slow
def test_three_methods_two_of_which_share_their_samples_and_the_second_time_all_is_cached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, page = tmp_path / "lake", tmp_path / "table.html"
    code, told, err = compare(lake, capsys, "rso", "sft-sample-rank", "oaif", "--html", str(page))
    assert code == 0, err
    figures = {row["method"]: row["figures"] for row in told["methods"]}
    assert list(figures) == ["rso", "sft-sample-rank", "oaif"]
    for row in told["methods"]:
        assert row["failed"] == []
        assert (
            0 <= row["win_rate"]["low"] <= row["win_rate"]["value"] <= row["win_rate"]["high"] <= 1
        )
        assert 0 < row["win_rate"]["prompts"] <= 6 and row["win_rate"]["seeds"] == 1
    assert told["methods"][0]["difference"] is None
    assert -1 <= told["methods"][1]["difference"]["value"] <= 1

    samples = [one for one in steps(lake, "sample") if one["sampling"]["n"] == 3]
    assert len(samples) == 1  # both methods' completions, sampled once
    assert len(steps(lake, "train_reward_model")) == 1  # one judge labels for all three
    held_out = [
        one
        for one in steps(lake, "sample")
        if one["sampling"] == samples[0]["sampling"] | {"n": 1, "max_tokens": 12}
    ]
    assert len(held_out) == 1 + 3  # the initial policy's answers, once, and each new policy's
    with Lake(lake, read_only=True) as opened:
        [counted] = opened.rows(
            "SELECT sum(len(token_ids)) AS tokens FROM completions WHERE version = ?",
            [samples[0]["version"]],
        )
        rounds = told["methods"][2]["runs"][0]["policies"][0]
        [online] = opened.rows(
            "SELECT sum(len(token_ids)) AS tokens FROM completions WHERE version = ?", [rounds]
        )
        [labelled] = opened.rows(
            "SELECT count(DISTINCT p.prompt) AS n FROM pairs p JOIN edges e ON e.parent = p.version JOIN versions v ON v.version = e.child"
            " WHERE v.step = 'train_reward_model' AND e.role = 'labelled'"
        )
        told_of = {one["role"] for one in report_of(opened, find(opened, rounds)[0])["judges"]}
    assert told_of == {
        "labelled the training pairs",
        "measured the result",
    }  # also where verdicts are a part of the rounds
    assert (
        figures["rso"]["tokens_sampled"]
        == figures["sft-sample-rank"]["tokens_sampled"]
        == counted["tokens"]
        <= told["tokens_at_most"]["rso"]
    )
    assert (
        figures["oaif"]["tokens_sampled"]
        == online["tokens"]
        <= told["tokens_at_most"]["oaif"]
        == 3 * 2 * 3 * 6
    )
    for name, one in figures.items():
        assert (one["people_prompts"], one["people_share"]) == (labelled["n"], 0.0), (
            name
        )  # through the reward model
        assert (one["own_share"], one["renewed_share"]) == (1.0, 1.0), name
        assert (one["api_answers"], one["api_calls"], one["api_usd"]) == (0.0, 0.0, 0.0), name
    held = {name: one["models_in_memory"] for name, one in figures.items()}
    assert (
        held["oaif"] - 1 == held["rso"] == held["sft-sample-rank"] >= 1
    )  # rounds hold the reference too
    assert figures["oaif"]["model_bytes"] > figures["rso"]["model_bytes"] > 0
    assert figures["rso"]["mean_lag"] >= figures["oaif"]["mean_lag"] == 0.0

    read = Read(page.read_text())
    assert read.tags.isdisjoint({"script", "link", "img"}) and not read.addresses
    assert Path(told["report"]).read_text()
    code, again, err = compare(lake, capsys, "rso", "sft-sample-rank", "oaif")
    assert code == 0, err
    assert again["steps"]["run"] == 0
    for row in told["methods"]:
        del row["runs"]
    for row in again["methods"]:
        del row["runs"]
    assert (again["methods"], again["initial"]) == (told["methods"], told["initial"])


@pytest.mark.slow
def test_a_method_of_one_s_own_under_two_seeds_within_a_budget_beside_one_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The judge of `broken` raises for every answer, so no pair is left to train on."""
    judge, mine, broken = tmp_path / "judge.py", tmp_path / "mine.yaml", tmp_path / "broken.yaml"
    judge.write_text("def never(prompt, completion):\n    raise ValueError('no')\n")
    broken.write_text(f"base: sft-sample-rank\njudge: {judge}:never\n")
    mine.write_text(
        "base: iterative-dpo\ndata: [samples]\njudge: shorter\nloss: {name: ipo, tau: 0.5}\nreference: initial\n"
    )
    larger = (
        "prompts.per_iteration=8",
        "sampling.n=4",
        "sampling.max_tokens=12",
        "--seeds",
        "2",
        "--budget-tokens",
        "300",
    )
    code, told, err = compare(tmp_path / "lake", capsys, str(broken), str(mine), "dpo", *larger)
    assert code == 2
    assert "Not every method came through (broken): the table says why" in err
    failed, own, dpo = told["methods"]
    assert [one["seed"] for one in failed["failed"]] == [0, 1]
    assert "No pair is left to train on" in failed["failed"][0]["why"]
    assert failed["win_rate"]["value"] is None and failed["figures"] == {}
    assert own["failed"] == dpo["failed"] == []
    assert own["difference"]["value"] is None  # the first has nothing to be compared with
    assert told["tokens_at_most"] == {
        "broken": 288,
        "mine": 288,
        "dpo": 0,
    }  # six prompts instead of eight
    assert own["win_rate"]["seeds"] == dpo["win_rate"]["seeds"] == 2
    assert {run["seed"]: run["command"].split()[-1] for run in own["runs"]} == {
        0: "seed=0",
        1: "seed=1",
    }
    for run in own["runs"]:
        one = run["figures"]
        assert 0 < one["tokens_sampled"] <= 288 and 0 < one["verdicts"] <= 24
        assert (
            one["people_prompts"],
            one["people_share"],
            one["own_share"],
            one["renewed_share"],
        ) == (0.0, 0.0, 1.0, 1.0)
    for run in dpo["runs"]:
        one = run["figures"]
        assert (
            one["people_share"],
            one["own_share"],
            one["renewed_share"],
            one["tokens_sampled"],
        ) == (1.0, 0.0, 0.0, 0.0)
        assert one["mean_lag"] is None and one["verdicts"] == 0 and one["people_prompts"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dpo",), "at least two methods"),
        (("dpo", "ipo", "dpo"), "dpo is named twice"),
        (("dpo", "nobody"), "nobody: There is no recipe `nobody`"),
        (("dpo", "ipo", "sampling.tmperature=1"), "dpo: A recipe has no key `sampling.tmperature`"),
        (
            ("dpo", "rso", "--budget-tokens", "5"),
            "rso: rso samples up to 18 tokens even of the fewest prompts",
        ),
        (("dpo", "ipo", "--seeds", "0"), "seeds"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_before_anything_is_run(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, err = compare(tmp_path / "lake", capsys, *words)
    assert (code, told) == (2, {})
    assert message in err and "Traceback" not in err


def test_methods_that_are_measured_differently_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: rso\nevaluation: {sampling: {temperature: 0.1}}\n")
    code, _, err = compare(tmp_path / "lake", capsys, "dpo", str(mine))
    assert code == 2
    assert "differ in evaluation.sampling.temperature (0.7 and 0.1) in iteration 1" in err
    mine.write_text("base: rso\nthen: {iteration: 2, changes: {prompts: {held_out: 1}}}\n")
    code, _, err = compare(tmp_path / "lake", capsys, "dpo", str(mine), "--iterations", "2")
    assert code == 2
    assert re.search(
        r"differ in prompts.held_out \(\d+ and 1\) in iteration 2", " ".join(err.split())
    )

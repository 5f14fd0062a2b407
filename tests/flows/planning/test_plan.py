"""What a plan says of a recipe's work, before anything is run: steps, tokens and questions at most.

Each figure is worked out by hand once; the others hold what a plan has said so far.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dapflow.flows.align import chosen
from dapflow.flows.planning.plan import make_plan
from dapflow.storage import Lake
from tests.helpers.lakes import write
from tests.helpers.toy import SMALL

LLM = ("judge={kind: llm, endpoint: {model: gpt-4.1-mini}}",)


def plan_of(recipe: str, settings: tuple[str, ...] = (), iterations: int = 1) -> dict[str, Any]:
    return make_plan(chosen(recipe, settings, toy=True), iterations, None)


@pytest.mark.parametrize(
    ("recipe", "settings", "sampled", "trained", "judge_calls", "paid"),
    [
        ("rso", (), 2304, 2016, 112, 0),
        ("rso", (*LLM, "acceptance.rule=all"), 2304, 2016, 80, 48),
        ("rso", (*LLM, "judge.mode=ten", "judge.samples=3", "judge.temperature=0.7"), 2304, 2016, 272, 240),
        ("rso", ("evaluation.judge={kind: llm, endpoint: {model: gpt-4.1-mini}}",), 2304, 2016, 112, 32),
        ("rso", ("judge=human", "acceptance.rule=all"), 2304, 2016, 56, 0),
        ("rso", ("judge=shorter",), 2304, 2016, 112, 0),
        ("rso", ("judge=policy",), 135744, 2016, 866, 0),
        ("rso", ("judge=composite", "judge.members.a=reward-model", "judge.members.b=shorter"), 2304, 2016, 192, 0),
        ("oaif", (), 2016, 1728, 88, 0),
        ("oaif", LLM, 2016, 1728, 56, 24),
    ],
)  # fmt: skip
def test_a_plan_counts_tokens_and_questions_at_most(
    recipe: str,
    settings: tuple[str, ...],
    sampled: int,
    trained: int,
    judge_calls: int,
    paid: int,
) -> None:
    plan = plan_of(recipe, settings)
    tokens = plan["tokens"]
    assert (tokens["sampled"], tokens["trained"]) == (sampled, trained)
    assert (plan["judge_calls"], plan["paid"]["calls"]) == (judge_calls, paid)


def tokens_of(plan: dict[str, Any], activity: str) -> list[dict[str, int]]:
    """Of the steps that do that, in their order."""
    return [step["tokens"] for step in plan["steps"] if step["activity"] == activity]


def test_answers_that_are_not_accepted_are_not_trained_on() -> None:
    settings = (*SMALL, "training.epochs=1")  # 4 prompts, 3 answers of at most 6 tokens
    best = plan_of("rejection-sampling", settings)["tokens"]["trained"]
    every = plan_of("rrhf", (*settings, "data=samples"))["tokens"]["trained"]
    assert best == 4 * (60 + 6)
    assert every == 4 * 3 * (60 + 6)


def test_rso_pairs_what_it_accepts() -> None:
    plan = plan_of("rso", (*SMALL, "acceptance.keep=2", "training.epochs=1"))
    [pairs] = [step for step in plan["steps"] if step["activity"] == "pairing"]
    assert pairs["rows"] == 4  # two of a prompt's three answers, and so one pair
    assert plan["tokens"]["trained"] == 4 * (60 + 2 * 6)


def test_peoples_pairs_are_as_long_as_they_are(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{n:040d}", "chosen": "c" * 80, "rejected": "r" * 120} for n in range(100)
    ]  # 10, 20 and 30 tokens
    file = tmp_path / "people.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = (f"preferences.source={file}", "training.epochs=2", "evaluation.judge=shorter")
    plan = plan_of("dpo", settings)
    pairs = next(step["rows"] for step in plan["steps"] if step["version"].startswith("pairs@"))
    assert tokens_of(plan, "training") == [{"trained": pairs * (10 + 20 + 30) * 2}]


def test_a_judge_reads_answers_as_long_as_those_that_it_judges() -> None:
    plan = plan_of("rso", (*SMALL, "evaluation.sampling.max_tokens=9"))
    judged = [tokens["scored"] for tokens in tokens_of(plan, "judging")]
    training, held_out = 4 * 60 + 4 * 3 * 6, 6 * 60 + 6 * 9
    assert judged == [training, *[held_out] * 4]  # before and after, by either judge


def test_what_a_lake_holds_takes_nothing(lake: Lake) -> None:
    first = plan_of("rso", (*SMALL,))["steps"]
    loaded = next(step for step in first if step["activity"] == "sampling")
    version, kind = loaded["version"].partition("@")[2], "completions"
    rows = pa.table({"id": [f"{version}-00000000"], "text": ["t"]})
    write(lake, kind, version, loaded["step"], rows, {})
    again = make_plan(chosen("rso", SMALL, toy=True), 1, lake)["steps"]
    [held] = [step for step in again if step["cached"] and step["version"] == loaded["version"]]
    assert (held["tokens"], held["seconds"]) == ({}, 0)

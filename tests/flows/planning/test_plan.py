"""What a plan says of a recipe's work, before anything is run: steps, tokens and questions at most.

Each figure is worked out by hand once; the others hold what a plan has said so far.
"""

from typing import Any

import pytest

from dapflow.flows.align import chosen
from dapflow.flows.planning.plan import make_plan

LLM = ("judge.endpoint.model=gpt-4.1-mini",)


def plan_of(recipe: str, settings: tuple[str, ...] = (), iterations: int = 1) -> dict[str, Any]:
    return make_plan(chosen(recipe, settings, toy=True), iterations, None)


@pytest.mark.parametrize(
    ("recipe", "settings", "sampled", "trained", "judge_calls", "paid"),
    [
        ("rso", (), 2112, 2016, 112, 0),
        ("rso", (*LLM, "acceptance.rule=all"), 2112, 2016, 80, 48),
        ("rso", (*LLM, "judge.mode=ten", "judge.samples=3", "judge.temperature=0.7"), 2112, 2016, 272, 240),
        ("rso", ("evaluation.judge.endpoint.model=gpt-4.1-mini",), 2112, 2016, 112, 32),
        ("rso", ("judge=human", "acceptance.rule=all"), 2112, 2016, 56, 0),
        ("rso", ("judge=shorter",), 2112, 2016, 112, 0),
        ("rso", ("judge=policy",), 84672, 2016, 548, 0),
        ("rso", ("judge.members.a=reward-model", "judge.members.b=shorter"), 2112, 2016, 192, 0),
        ("oaif", (), 1824, 1728, 88, 0),
        ("oaif", LLM, 1824, 1728, 56, 24),
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

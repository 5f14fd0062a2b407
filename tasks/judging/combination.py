"""How the verdicts of several judges on the same completions amount to one verdict. A missing
verdict makes it missing. Pure functions.

Test: pytest tests/tasks/judging/test_combination.py
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dapflow.tasks.judging.judges.base import Verdict, decided

_LEAST = 1e-6  # probabilities are kept this far from 0 and 1, so that their logit is finite
_WON = {"win": 1.0, "tie": 0.5, "lose": 0.0}
_FAILURES = ("over_budget", "refused", "invalid")  # of several, the first that is among them
SAFETY, HELPFULNESS = "safety", "helpfulness"
Rule = Literal["sum", "minimum", "majority", "safety-first"]


class Combination(BaseModel):
    """A rule and what it needs to know of the members, by name; not who they are: so another weight
    judges nothing again.

    scales: the lowest and the highest score of each member, for a rule that needs probabilities;
    None for one that scores in logits.
    """

    model_config = ConfigDict(frozen=True)
    rule: Rule
    names: tuple[str, ...]
    weights: dict[str, float] = {}
    threshold: float = 0.0
    scales: tuple[tuple[float, float] | None, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule} of {', '.join(self.names)}"

    def weight(self, name: str) -> float:
        """What a member's verdict is multiplied with."""
        return self.weights.get(name, 1.0)


def combine_scores(
    combination: Combination, verdicts: Mapping[str, Verdict | None], unsafe: bool
) -> Verdict:
    """The verdict on one completion. verdicts: each member's, None where there is none.
    safety-first: a logit, not yet whitened.
    """
    if (failed := _failure(verdicts)) is not None:
        return failed
    scores = {
        name: verdict.score
        for name, verdict in verdicts.items()
        if verdict is not None and verdict.score is not None
    }
    if combination.rule == "safety-first":
        return _safety_first(combination, scores, unsafe)
    if combination.rule == "minimum":
        name = min(scores, key=lambda one: scores[one])
        return Verdict(outcome="scored", score=scores[name], note=name)
    return Verdict(
        outcome="scored",
        score=sum(combination.weight(name) * score for name, score in scores.items()),
    )


def combine_votes(combination: Combination, verdicts: Mapping[str, Verdict | None]) -> Verdict:
    """The verdict on a match: the weighted mean of the members' probabilities, or the share of
    their votes (a tie is half a vote).
    """
    if (failed := _failure(verdicts)) is not None:
        return failed
    there = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    if combination.rule == "majority":
        return decided(fmean(_WON[verdict.outcome] for verdict in there.values()))
    total = sum(combination.weight(name) for name in there)

    def mean(values: Mapping[str, float | None]) -> float | None:
        told = {name: value for name, value in values.items() if value is not None}
        return (
            sum(combination.weight(name) * value for name, value in told.items()) / total
            if len(told) == len(there)
            else None
        )

    probability = mean({name: verdict.score for name, verdict in there.items()})
    assert probability is not None, "a verdict that has not failed has a score"
    forward = mean({name: verdict.forward for name, verdict in there.items()})
    return decided(
        probability, forward, mean({name: verdict.backward for name, verdict in there.items()})
    )


def vote(one: Verdict | None, other: Verdict | None) -> Verdict | None:
    """How a judge that scores votes on two completions: for the higher score."""
    if (failed := _failure({"": one, " ": other})) is not None:
        return Verdict(
            outcome=failed.outcome, note=(failed.note or "").removeprefix(": ").removeprefix(" : ")
        )
    assert (
        one is not None and other is not None and one.score is not None and other.score is not None
    )
    return decided(1.0 if one.score > other.score else 0.0 if one.score < other.score else 0.5)


def whitened(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The same with scores of mean 0 and standard deviation 1 (Llama 2, arXiv 2307.09288, section
    3.2.3: WHITEN).
    """
    scores = [
        verdict.score
        for verdict in verdicts
        if verdict.outcome == "scored" and verdict.score is not None
    ]
    mean, spread = (fmean(scores), pstdev(scores)) if scores else (0.0, 0.0)
    return [
        Verdict(outcome="scored", score=(verdict.score - mean) / (spread or 1.0), note=verdict.note)
        if verdict.outcome == "scored" and verdict.score is not None
        else verdict
        for verdict in verdicts
    ]


def _safety_first(combination: Combination, scores: Mapping[str, float], unsafe: bool) -> Verdict:
    """R_c = R_s where the prompt is tagged unsafe or R_s < 0.15, else R_h; its logit (Llama 2,
    section 3.2.3).
    """
    probabilities = dict[str, float]()
    for name, scale in zip(combination.names, combination.scales, strict=True):
        probability = _probability(scores[name], scale)
        if not 0 <= probability <= 1:
            return Verdict(
                outcome="invalid",
                note=(
                    f"{name}: its score {scores[name]:g} is not within 0 to 1, as safety-first "
                    "needs it"
                ),
            )
        probabilities[name] = min(max(probability, _LEAST), 1 - _LEAST)
    name = SAFETY if unsafe or probabilities[SAFETY] < combination.threshold else HELPFULNESS
    kept = probabilities[name]
    return Verdict(outcome="scored", score=math.log(kept / (1 - kept)), note=name)


def _probability(score: float, scale: tuple[float, float] | None) -> float:
    if scale is not None:
        return (score - scale[0]) / (scale[1] - scale[0])
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0  # exp would overflow


def _failure(verdicts: Mapping[str, Verdict | None]) -> Verdict | None:
    """What became of the verdict where a member has none; None where all have one."""
    for outcome in _FAILURES:
        for name, verdict in verdicts.items():
            if verdict is None and outcome == "invalid":
                return Verdict(outcome="invalid", note=f"{name}: no verdict")
            if verdict is not None and verdict.outcome == outcome:
                return Verdict(outcome=verdict.outcome, note=f"{name}: {verdict.note or outcome}")
    return None

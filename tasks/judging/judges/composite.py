"""Several judges as one: how their verdicts on the same completions amount to one verdict. One that
is missing makes it missing.

    Composite(rule="sum", members={"brief": "shorter", "good": "reward-model"}, weights={"brief": 0.05})
Test: pytest tests/tasks/judging/judges/test_composite.py
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from dapflow.tasks.judging.judges.base import Verdict, decided
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.prompted import SelfJudge
from dapflow.tasks.judging.judges.reward_settings import RewardModel

_LEAST = 1e-6  # probabilities are kept this far from 0 and 1, so that their logit is finite
_WON = {"win": 1.0, "tie": 0.5, "lose": 0.0}
_FAILURES = ("over_budget", "refused", "invalid")  # of several, the first that is among them
SAFETY, HELPFULNESS = "safety", "helpfulness"
Rule = Literal["sum", "minimum", "majority", "safety-first"]


def _kind_of_member(value: Any) -> str:
    if isinstance(value, dict):
        return "llm" if "endpoint" in value else "human" if "person" in value else "reward"
    return (
        "human"
        if value == "human"
        else {RewardModel: "reward", LLM: "llm", Human: "human"}.get(type(value), "program")
    )


Member = Annotated[
    Annotated[RewardModel, Tag("reward")]
    | Annotated[str, Tag("program")]
    | Annotated[LLM, Tag("llm")]
    | Annotated[Human, Tag("human")],
    Discriminator(_kind_of_member),
]


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


class Composite(BaseModel):
    """Judges by name, and the rule by which they are one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rule: Rule = Field(
        default="sum",
        description="`sum`: weighted, of scores or of probabilities; `minimum`: the lowest score; `majority`: of votes on two answers; "
        "`safety-first`: `safety` where it is below `threshold` or the prompt is `unsafe`, else `helpfulness` (Llama 2)",
    )
    members: dict[str, Member] = Field(
        default={},
        description="a reward model, `models@...`, a program, an LLM or a person (`human`, or `person: ...`), each by a name",
    )
    weights: dict[str, float] = Field(
        default={},
        description="sum: of members by name, each in its judge's unit; 1 where not named",
    )
    threshold: float = Field(default=0.15, gt=0, lt=1, description="safety-first: a probability")

    @field_validator("members", mode="before")
    @classmethod
    def _refuse_itself(cls, value: Any) -> Any:
        for name, member in value.items() if isinstance(value, dict) else ():
            if (
                member == "policy"
                or (isinstance(member, dict) and "by" in member)
                or isinstance(member, SelfJudge)
            ):
                raise ValueError(
                    f"{name}: the policy judges alone, since it is measured each iteration and replaced where it cannot judge: set "
                    "judge=policy, or serve a policy (`dapflow serve`) and name it as an LLM, {endpoint: {base_url: ..., model: ...}}"
                )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.members) < 2:
            raise ValueError(
                "a composite needs at least two members, for example {brief: shorter, good: reward-model}"
            )
        if self.rule == "safety-first" and set(self.members) != {SAFETY, HELPFULNESS}:
            raise ValueError(f"safety-first: its members are called {SAFETY} and {HELPFULNESS}")
        if unknown := sorted(set(self.weights) - set(self.members)):
            raise ValueError(f"weights: there is no member {', '.join(unknown)}")
        if not all(math.isfinite(weight) for weight in self.weights.values()):
            raise ValueError("weights: each must be a finite number")
        if self.weights and self.rule != "sum":
            raise ValueError("weights: goes with rule sum")
        return self


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
                note=f"{name}: its score {scores[name]:g} is not within 0 to 1, as safety-first needs it",
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

"""The kind `composite`: several judges as one, by a rule (tasks/judging/combination.py).

    Composite(rule="sum", members={"brief": "shorter", "good": "reward-model"}, weights={"brief": 0.05})
Test: pytest tests/flows/judges/test_judges.py
"""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from dapflow.storage import UserError
from dapflow.tasks.judging.combination import HELPFULNESS, SAFETY, Combination, Rule
from dapflow.tasks.judging.kinds import AnyJudge
from dapflow.tasks.judging.spec import JudgeSpec, Seated, Seats


class Composite(JudgeSpec):
    """Judges by name, and the rule by which they are one."""

    answers_at_once: ClassVar[bool] = False
    why_no_member: ClassVar[str | None] = "several judges as one cannot be one of several"
    kind: Literal["composite"] = "composite"
    rule: Rule = Field(
        default="sum",
        description="`sum`: weighted, of scores or of probabilities; `minimum`: the lowest score; `majority`: of votes on two answers; "
        "`safety-first`: `safety` where it is below `threshold` or the prompt is `unsafe`, else "
        "`helpfulness` (Llama 2)",
    )
    members: dict[str, AnyJudge] = Field(
        default={},
        description="a reward model, `models@...`, a program, an LLM or a person, each by a name: a word, or settings with their `kind`",
    )
    weights: dict[str, float] = Field(
        default={},
        description="sum: of members by name, each in its judge's unit; 1 where not named",
    )
    threshold: float = Field(default=0.15, gt=0, lt=1, description="safety-first: a probability")

    @field_validator("members")
    @classmethod
    def _are_members(cls, value: dict[str, JudgeSpec]) -> dict[str, JudgeSpec]:
        for name, judge in value.items():
            if judge.why_no_member:
                raise ValueError(f"{name}: {judge.why_no_member}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.members) < 2:
            raise ValueError(
                "a composite needs at least two members, for example {brief: shorter, good: "
                "reward-model}"
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

    def __str__(self) -> str:
        return f"{self.rule} of {', '.join(self.members)}"

    @property
    def compares(self) -> bool:
        """A majority votes on two completions; a sum is one of probabilities when all its members
        compare.
        """
        return self.rule == "majority" or all(judge.compares for judge in self.members.values())

    @property
    def compares_with_a_baseline(self) -> bool:
        """Whether a member does."""
        return any(judge.compares_with_a_baseline for judge in self.members.values())

    @property
    def ready(self) -> bool:
        """Whether all its members are."""
        return all(judge.ready for judge in self.members.values())

    def check(self) -> None:
        """Raise UserError for members that could not be asked, or that the rule does not suit."""
        for judge in self.members.values():
            judge.check()
        some_compare = any(judge.compares for judge in self.members.values())
        if some_compare and not self.compares:
            raise UserError(
                f"The judge's rule {self.rule} needs members that all score, or, for a sum, that "
                "all compare: majority takes both."
            )
        if self.compares and not all(weight > 0 for weight in self.weights.values()):
            raise UserError(
                "The judge's weights must be greater than 0 where its members compare: a sum is "
                "the mean of their probabilities."
            )
        if self.compares and self.rule in ("minimum", "safety-first"):
            raise UserError(
                f"The judge's rule {self.rule} needs scores, and its members compare: take "
                "majority or sum, or other members."
            )

    def executes(self) -> Iterator[tuple[str, str]]:
        """What its members do."""
        for name, judge in self.members.items():
            for key, function in judge.executes():
                yield ".".join(filter(None, ("members", name, key))), function

    def with_reward(self, reward: JudgeSpec) -> JudgeSpec:
        """The same with the recipe's reward model as a member, where one is named so."""
        members = {name: judge.with_reward(reward) for name, judge in self.members.items()}
        return self.model_copy(update={"members": members})

    def on_toy(self) -> JudgeSpec:
        """The same of the members' toys."""
        members = {name: judge.on_toy() for name, judge in self.members.items()}
        return self.model_copy(update={"members": members})

    def seated(self, seats: Seats) -> Seated:
        """Its members, each seated."""
        members = {name: judge.seated(seats) for name, judge in self.members.items()}
        of_safety = self.rule == "safety-first"
        combination = Combination(
            rule=self.rule,
            names=tuple(members),
            weights=self.weights if self.rule == "sum" else {},
            threshold=self.threshold if of_safety else 0.0,
            scales=tuple(judge.spec.scale for judge in members.values()) if of_safety else (),
        )
        return Seated(spec=self, members=members, combination=combination)

"""The gate between a trained policy and its promotion: thresholds of the recipe against figures of
the evaluation, by name.

    checks = recipe.gate.check(gate_figures(lake, metrics), gaps(lake, metrics))        open when all hold
A figure that is not there, or no number, closes the gate, but only where its threshold is set.
Test: pytest tests/flows/recipes/test_gate.py
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, Lake
from dapflow.storage.promotions import Figures

Bound = Literal["value", "low", "high"]
_PLACES: tuple[Bound, ...] = ("value", "low", "high")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One threshold and what it was held against. why_none: the reason why nothing was found, where
    one is known.
    """

    name: str
    found: float | None
    threshold: float
    at_least: bool
    why_none: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure is there and on the right side."""
        return self.found is not None and (
            self.found >= self.threshold if self.at_least else self.found <= self.threshold
        )

    def __str__(self) -> str:
        reason = f", for {self.why_none}" if self.why_none else ""
        found = f"was not measured{reason}" if self.found is None else f"is {self.found:.3g}"
        return (
            f"{self.name} {found}, {'at least' if self.at_least else 'at most'} {self.threshold:g} "
            "is asked"
        )


class Gate(BaseModel):
    """What a policy must show on the held-out prompts to be promoted. None: not asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    win_rate_low: float | None = Field(
        default=0.5,
        description=(
            "least lower end of the win rate's 95 % interval: from 0.5 on it is better, not just "
            "lucky"
        ),
    )
    length_growth: float | None = Field(
        default=0.5, description="most that answers may grow: 0.5 is by half"
    )
    invalid_rate: float | None = Field(
        default=0.1, description="largest share of the evaluation's verdicts that could not be read"
    )
    kl: float | None = Field(
        default=None, description="largest KL divergence from the initial policy, nats per answer"
    )
    judge_agreement: float | None = Field(
        default=None,
        description=(
            "least share of answers to held-out prompts of which the training judge and the "
            "evaluation's name the same as better"
        ),
    )
    least: dict[str, float] = Field(
        default={}, description="any other figure of the evaluation: name and least value"
    )
    most: dict[str, float] = Field(
        default={}, description="any other figure of the evaluation: name and largest value"
    )

    def check(self, figures: Figures, gaps: Mapping[str, str] | None = None) -> list[Check]:
        """Each threshold that is set, against its figure. gaps: by name, why there is no such
        figure.
        """
        return list(self._checks(figures, gaps or {}))

    def _checks(self, figures: Figures, gaps: Mapping[str, str]) -> Iterator[Check]:
        asked: list[tuple[str, float | None, bool, Bound]] = [
            ("win_rate", self.win_rate_low, True, "low"),
            ("length_growth", self.length_growth, False, "value"),
            ("invalid_rate", self.invalid_rate, False, "value"),
            ("kl_to_initial", self.kl, False, "value"),
            ("judge_agreement", self.judge_agreement, True, "value"),
            *((name, threshold, True, "value") for name, threshold in self.least.items()),
            *((name, threshold, False, "value") for name, threshold in self.most.items()),
        ]
        for name, threshold, at_least, bound in asked:
            if threshold is not None:
                found = figures[name][_PLACES.index(bound)] if name in figures else None
                title = name if bound == "value" else f"{name} ({bound} end of its interval)"
                yield Check(
                    name=title,
                    found=found,
                    threshold=threshold,
                    at_least=at_least,
                    why_none=gaps.get(name),
                )


def gate_figures(lake: Lake, metrics: DatasetRef) -> Figures:
    """Every figure of an evaluation that has a value, by name: tasks/metrics.py says what each is."""
    rows = [
        row for row in lake.rows_of(metrics) if row["step"] is None and row["value"] is not None
    ]
    return {row["name"]: (row["value"], row["low"], row["high"]) for row in rows}


def gaps(lake: Lake, metrics: DatasetRef) -> dict[str, str]:
    """Why the evaluation has no such figure, by name; of one without an interval, why not."""
    return {
        row["name"]: row["note"]
        for row in lake.rows_of(metrics)
        if row["step"] is None and row["low"] is None and row["note"]
    }

"""How far two judges, or a judge and people, agree on which of two answers is the better one.

    judgements (P(first answer is better) by each, and how much longer it is)  ->  Agreement
Imports neither torch nor prefect. Test: pytest tests/tasks/evaluation/test_agreement.py
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dapflow.storage.errors import UserError
from dapflow.tasks.statistics import wilson

OUTCOMES = ("first", "tie", "second")
_BINS = 4  # as many judgements in each, about


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Two answers as both judge them: the probability that the first is better. longer: by how many
    characters it is the longer one.
    """

    one: float
    other: float
    longer: int


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Judgements whose answers differ in length by at least so many characters, and at most so
    many.
    """

    least: int
    most: int
    n: int
    agreement: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Shares from 0 to 1 with their 95 % intervals.

    agreement: both name the same answer, or both say tie. accuracy: of those that both decide, how
    often they name the same; None where there are none. kappa: agreement beyond what chance would
    give (Cohen 1960); None where one of them always says the same. confusion: counts by what one
    says, then by what the other says. *_prefers_longer: how often each prefers the longer answer,
    of those it decides.
    """

    n: int
    agreement: float
    agreement_low: float
    agreement_high: float
    decided: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    kappa: float | None
    confusion: dict[str, dict[str, int]]
    one_prefers_longer: float | None
    other_prefers_longer: float | None
    by_length: list[Bin]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def agreement_of(judgements: Sequence[Judgement]) -> Agreement:
    """The figures. Raises UserError where there is nothing that both have judged."""
    if not judgements:
        raise UserError(
            "There is nothing that both have judged: the same pairs of answers must be in both."
        )
    said = [(outcome(judgement.one), outcome(judgement.other)) for judgement in judgements]
    counts, n = Counter(said), len(said)
    same = sum(one == other for one, other in said)
    decided = [(one, other) for one, other in said if "tie" not in (one, other)]
    right = sum(one == other for one, other in decided)
    low, high = wilson(same, n)
    accuracy = (
        (right / len(decided), *wilson(right, len(decided))) if decided else (None, None, None)
    )
    return Agreement(
        n=n,
        agreement=same / n,
        agreement_low=low,
        agreement_high=high,
        decided=len(decided),
        accuracy=accuracy[0],
        accuracy_low=accuracy[1],
        accuracy_high=accuracy[2],
        kappa=_kappa(counts, n),
        confusion={one: {other: counts[one, other] for other in OUTCOMES} for one in OUTCOMES},
        one_prefers_longer=_prefers_longer(
            (judgement.one, judgement.longer) for judgement in judgements
        ),
        other_prefers_longer=_prefers_longer(
            (judgement.other, judgement.longer) for judgement in judgements
        ),
        by_length=_by_length(judgements),
    )


def outcome(probability: float) -> str:
    """What a probability amounts to. Exactly 0.5 is a tie, not a label."""
    return "tie" if probability == 0.5 else "first" if probability > 0.5 else "second"


def _kappa(counts: Counter[tuple[str, str]], n: int) -> float | None:
    same = sum(counts[one, one] for one in OUTCOMES) / n
    by_one = {one: sum(counts[one, other] for other in OUTCOMES) / n for one in OUTCOMES}
    by_other = {other: sum(counts[one, other] for one in OUTCOMES) / n for other in OUTCOMES}
    chance = sum(by_one[name] * by_other[name] for name in OUTCOMES)
    return (
        None if 1 in by_one.values() or 1 in by_other.values() else (same - chance) / (1 - chance)
    )


def _prefers_longer(said: Iterable[tuple[float, int]]) -> float | None:
    able = [
        (probability > 0.5) == (longer > 0)
        for probability, longer in said
        if probability != 0.5 and longer != 0
    ]
    return sum(able) / len(able) if able else None


def _by_length(judgements: Sequence[Judgement]) -> list[Bin]:
    """Equal shares of the judgements, from those whose answers are about as long as each other on."""
    order = sorted(
        judgements, key=lambda judgement: (abs(judgement.longer), judgement.one, judgement.other)
    )
    bins = list[Bin]()
    for places in np.array_split(np.arange(len(order)), min(_BINS, len(order))):
        some = [order[place] for place in places]
        same = sum(outcome(one.one) == outcome(one.other) for one in some)
        low, high = wilson(same, len(some))
        lengths = [abs(one.longer) for one in some]
        bins.append(
            Bin(
                least=min(lengths),
                most=max(lengths),
                n=len(some),
                agreement=same / len(some),
                low=low,
                high=high,
            )
        )
    return bins

"""The scores that a file gives its answers: what is a number, how far chosen is above rejected,
which answers of several are best and worst.

    margin_of({"score_chosen": 8, "score_rejected": "5"})  ->  (3.0, None)
    margin_of({"score_chosen": 2, "score_rejected": 9})    ->  (-7.0, "contradicted"): left out, for choice and scores cannot both be right
    best_and_worst(completions)                            ->  (best, worst, margin, reason)
Test: pytest tests/tasks/prompts/test_scores.py
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, combinations
from statistics import fmean
from typing import Any

from dapflow.tasks.prompts.columns import normal

_PAIR_SCORES = (
    "score",
    "rating",
    "reward",
    "overall_score",
    "avg_rating",
    "average_rating",
    "mean_rating",
    "avg_score",
    "average_score",
    "mean_score",
    "scores",
    "ratings",
    "grade",
    "points",
    "quality_score",
    "reward_score",
    "rm_score",
)
_COLUMNS = [
    (form.format("chosen"), form.format("rejected"))
    for word in _PAIR_SCORES
    for form in (f"{word}_{{}}", f"{{}}_{word}")
]
_OVERALL = ("overall_score", "score", "overall_rating", "rating")
_INFINITE = ("inf", "infinity")
_TEXTS = ("response", "text", "content", "completion")


def number(value: Any) -> float | None:
    """A finite number, also as text; None for everything else: true and false, NaN, infinity, N/A."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def _infinite(value: Any) -> bool:
    return (isinstance(value, float) and math.isinf(value)) or (
        isinstance(value, str) and value.strip().lower().lstrip("+-") in _INFINITE
    )


def margin_of(fields: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """How far the file's scores put chosen above rejected, None without; and why the pair is left
    out: level, or the other way round.
    """
    named = {normal(name): value for name, value in fields.items()}
    given = [
        (named[chosen], named[rejected])
        for chosen, rejected in _COLUMNS
        if chosen in named and rejected in named
    ]
    scores = [(number(chosen), number(rejected)) for chosen, rejected in given]
    margins = [
        chosen - rejected
        for chosen, rejected in scores
        if chosen is not None and rejected is not None
    ]
    margins += [margin for margin in [number(named.get("margin"))] if margin is not None]
    if any(map(_infinite, (*chain.from_iterable(given), named.get("margin")))):
        return None, "infinite_scores"
    if not margins:
        return None, None
    reason = "contradicted" if min(margins) < 0 else "tie" if margins[0] == 0 else None
    return next((margin for margin in margins if margin < 0), margins[0]), reason


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An answer with its overall score, and with the mean of its ratings by aspect (`fine`)."""

    text: str
    overall: float | None
    fine: float | None


def best_and_worst(
    completions: Sequence[Mapping[str, Any]],
) -> tuple[str, str, float | None, str | None]:
    """The texts of the best and the worst answer, how far they are apart, and why the row is left
    out.

    Ratings by aspect decide where as many answers have them as have an overall score, for that is
    known to be misread (a 1 as 10) in UltraFeedback. Where fewer have them, overall scores that
    they contradict leave the row out.
    """
    answers = [answer for answer in map(_answer, completions) if answer.text.strip()]
    fine = [answer for answer in answers if answer.fine is not None]
    overall = [answer for answer in answers if answer.overall is not None]
    scored = (
        [(answer.fine, answer) for answer in fine]
        if len(fine) >= len(overall)
        else [(answer.overall, answer) for answer in overall]
    )
    ranked = [(score, answer) for score, answer in scored if score is not None]
    if len(ranked) < 2:
        return "", "", None, "unscored"
    best, worst = (
        max(ranked, key=lambda each: each[0]),
        min(reversed(ranked), key=lambda each: each[0]),
    )
    level = best[0] == worst[0]
    doubtful = len(fine) < len(overall) and _contradict(answers, (best[1], worst[1]))
    reason = "tie" if level else "doubtful_scores" if doubtful else None
    return best[1].text, worst[1].text, best[0] - worst[0], reason


def _answer(completion: Mapping[str, Any]) -> Scored:
    text = next((completion[name] for name in _TEXTS if isinstance(completion.get(name), str)), "")
    overall = next(
        (read for name in _OVERALL if (read := number(completion.get(name))) is not None), None
    )
    return Scored(text=text, overall=overall, fine=_fine(completion))


def _fine(completion: Mapping[str, Any]) -> float | None:
    """The mean of the ratings by aspect; without them what the file says it is."""
    aspects = completion.get("annotations")
    notes = aspects.values() if isinstance(aspects, Mapping) else ()
    ratings = [
        number(note.get("Rating", note.get("rating")) if isinstance(note, Mapping) else note)
        for note in notes
    ]
    known = [rating for rating in ratings if rating is not None]
    return (
        fmean(known)
        if known
        else number(completion.get("fine-grained_score", completion.get("fine_grained_score")))
    )


def _contradict(answers: Sequence[Scored], pair: tuple[Scored, Scored]) -> bool:
    """Whether an answer of the pair is above another in one of the two scores and below it in the
    other.
    """
    both = [(answer, answer.overall, answer.fine) for answer in answers]
    rated = [
        (answer, overall, fine)
        for answer, overall, fine in both
        if overall is not None and fine is not None
    ]
    return any(
        (overall - other_overall) * (fine - other_fine) < 0
        for (answer, overall, fine), (other, other_overall, other_fine) in combinations(rated, 2)
        if answer in pair or other in pair
    )

"""What a file of judged answers must not mix: scales, and judges.

    check_scale(votes, name, file)       every preference is a probability; else a sentence that says how its scale becomes one
    check_judges(names, file)            one judge's name in a column such as `annotator`
    check_repeated(rows, numbers, file)  the same two answers are not judged in two ways
Imports neither torch nor prefect. Test: pytest tests/tasks/evaluation/winrate/test_votes.py
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from dapflow.storage.errors import UserError
from dapflow.tasks.prompts.columns import normal

_JUDGES = frozenset(
    [
        "judge",
        "annotator",
        "evaluator",
        "rater",
        "grader",
        "labeler",
        "labeller",
        "reviewer",
        "assessor",
        "referee",
        "voter",
    ]
)
_BY = frozenset(
    f"{done}_by"
    for done in (
        "judged",
        "annotated",
        "evaluated",
        "rated",
        "graded",
        "labeled",
        "labelled",
        "reviewed",
    )
)
_CALLED = frozenset({"name", "id", "model"})
_SHOWN = 3  # names of judges in a sentence


class Vote(Protocol):
    """A judged answer: what was asked, which two answers were compared, and the preference."""

    @property
    def asked(self) -> tuple[str, str, int, int]: ...
    @property
    def preference(self) -> float: ...


def names_a_judge(column: str) -> bool:
    """Whether a column says who judged: annotator, judge_name, model_judge, rated_by; not
    judge_reason.
    """
    name = normal(column)
    words = name.split("_")
    while words and words[-1] in _CALLED:
        words.pop()
    return name in _BY or (bool(words) and words[-1] in _JUDGES)


def judge_named(value: Any) -> str | None:
    """The name, or the number, of a judge; None for what is none, or is a vote itself (from 0 to
    1).
    """
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        return None
    try:
        return None if 0 <= float(value) <= 1 else str(value)
    except (ValueError, OverflowError):
        return str(value).strip()


def check_judges(names: Mapping[str, Iterable[str]], file: str) -> None:
    """Raise UserError where a column names several judges."""
    for column, several in names.items():
        judges = sorted(several)
        if len(judges) > 1:
            shown = ", ".join(judges[:_SHOWN]) + (", ..." if len(judges) > _SHOWN else "")
            raise UserError(
                f"{file} holds the votes of {len(judges):,} judges (column `{column}`: {shown}), "
                "and a rate over all of them is none of theirs:"
                f" keep the rows of one judge in the file, or take the column `{column}` out if "
                "each vote is to count like any other."
            )


def check_repeated(votes: Sequence[Vote], numbers: Sequence[int], file: str) -> None:
    """Raise UserError where the same answers to the same instruction have different preferences.
    numbers: of the rows.
    """
    seen = dict[tuple[str, str, int, int], tuple[int, float]]()
    for number, vote in zip(numbers, votes, strict=True):
        before, preference = seen.setdefault(vote.asked, (number, vote.preference))
        if preference != vote.preference:
            raise UserError(
                f"{file}: rows {before} and {number} judge the same two answers in two ways "
                f"({preference:g} and {vote.preference:g}), as two"
                " judges (or annotators) do, or one who is asked twice: keep the rows of one "
                "judge, and one row for each pair of answers."
            )


def check_scale(preferences: Sequence[float], numbers: Sequence[int], name: str, file: str) -> None:
    """Raise UserError, naming the first such row, where a preference is no probability."""
    for number, preference in zip(numbers, preferences, strict=True):
        if not 0 <= preference <= 1:
            raise UserError(
                f"{file}, row {number}: `{name}` is {preference}, but must be the probability, "
                "from 0 to 1, that the output beats the baseline:"
                f" {_advice(preferences)}."
            )


def _advice(preferences: Sequence[float]) -> str:
    """How the scale that these are on becomes the probability, for every value of theirs."""
    low, high = min(preferences), max(preferences)
    if all(value == 0 or 1 <= value <= 2 for value in preferences):
        steps = (
            " (if 0 is the baseline's win, 1 a draw and 2 the output's, halve each instead)"
            if {*preferences} <= {0, 1, 2}
            else ""
        )
        return (
            "on AlpacaEval's scale, where 1 is the baseline's win, 2 the output's, and 0 or 1.5 a "
            "draw, write 0.5 for each draw and subtract 1"
            f" from the others{steps}"
        )
    if -1 <= low < 0 and high <= 1:
        return "if -1 is the baseline's win, 0 a draw and 1 the output's, add 1 and halve each"
    if low >= 0 and 10 < high <= 100:
        return "if these are per cent, divide each by 100"
    return "change its scale so that 0 is the baseline's win, 0.5 a draw and 1 the output's"

"""What one should know before believing win rates, in sentences. Test: pytest
tests/tasks/evaluation/winrate/test_rates.py
"""

from collections.abc import Sequence

import numpy as np

from dapflow.tasks.evaluation.winrate.comparisons import Comparison, Comparisons
from dapflow.tasks.evaluation.winrate.length_control import FOLDS, Rows
from dapflow.tasks.statistics import prompts_for

# of the answers longer than the baseline's, or shorter: few show what equal lengths would do
_ONE_SIDED = 0.95
_REPEATED = 0.5  # of the rows with one and the same answer


def notes_on(rows: Rows, same_answer: float, prompts: int) -> list[str]:
    """What one should know before believing the figures."""
    own, notes = len(np.unique(rows.prompt)), list[str]()
    if own == 1:
        notes.append(
            "one prompt says nothing about others: the interval is all there is, 0 to 100."
        )
    elif rows.preference.min() == rows.preference.max():
        what = "a tie" if rows.preference[0] == 0.5 else f"{rows.preference[0]:g}"
        notes.append(f"every preference is {what}: is that what the judge said?")
    if own < prompts:
        notes.append(f"judged on {own:,} of the {prompts:,} prompts.")
    if is_suspect(rows, same_answer):
        notes.append(
            f"gives {same_answer:.0%} of the prompts one and the same answer: its win rate is "
            "about the judge, not about the answers."
        )
    return notes


def notes_on_lengths(rows: Rows) -> list[str]:
    """What to know before believing the length-controlled figures."""
    shares = ((np.mean(rows.delta < 0), "shorter"), (np.mean(rows.delta > 0), "longer"))
    return [
        f"{share:.1%} of its answers are {word} than the baseline's: what equal lengths would do "
        "is largely guessed."
        for share, word in shares
        if share >= _ONE_SIDED
    ]


def is_suspect(rows: Rows, same_answer: float) -> bool:
    return len(np.unique(rows.prompt)) >= FOLDS and same_answer >= _REPEATED


def notes_on_left_out(found: Comparisons) -> list[str]:
    return [
        f"{count:,} {'row has' if count == 1 else 'rows have'} no `{name}`: left out."
        for name, count in sorted(found.left_out.items())
    ]


def notes_on_repeated(rows: Sequence[Comparison]) -> list[str]:
    """Rows of an instruction that the same system has one of already: several answers are meant to
    be there, a part of the file twice is not.
    """
    again, same = (
        len(rows) - len({(one.system, one.instruction) for one in rows}),
        len(rows) - len(set(rows)),
    )
    if not again:
        return []
    alike = (
        f" {same:,} of them {'is' if same == 1 else 'are'} the same again in every column: is a "
        "part of the file in it twice?"
        if same
        else ""
    )
    what = (
        "1 row has an instruction that its system"
        if again == 1
        else f"{again:,} rows have an instruction that their system"
    )
    return [
        f"{what} was judged on before: kept, so that instructions with more rows count for "
        f"more.{alike}"
    ]


def advice(prompts: int, half: float, spread: float) -> str:
    """How sure so many prompts make us, and how many would make it surer. half: of the interval, in
    points; spread: standard deviation of what one prompt came to, 0 to 1."""
    if prompts == 1 or not half:
        return ""
    target = next((one for one in (5.0, 2.0, 1.0, 0.5) if one < 0.8 * half), half / 2)
    needed = prompts_for(target / 100, spread)
    more = (
        f"; ±{target:.1f} would take about {needed:,} that spread like these"
        if needed > prompts
        else ""
    )
    return f"{prompts:,} prompts give ±{half:.1f} points{more}."

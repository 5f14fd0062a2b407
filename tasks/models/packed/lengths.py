"""Which rows fit a model: a prompt with an answer is never longer than the context the model was
made for. One rule, for training and judges.

    groups, figures = fitting(groups, context, least=2)    what fits, and a figure about each row that does not: its tokens
What does not fit is left out and counted before anything is computed, never cut. Test: pytest
tests/tasks/models/packed/test_lengths.py
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

from dapflow.storage import Lake
from dapflow.tasks.models.packed.batches import Group

TOO_LONG = "too_long"


def lengths(group: Group) -> list[int]:
    """Tokens that a model reads for each answer, the prompt among them. An answer's last token is
    only predicted.
    """
    return [len(group.prompt) + len(answer) - 1 for answer in group.answers]


def fitting(
    groups: Iterable[Group], context: int, least: int
) -> tuple[list[Group], list[dict[str, Any]]]:
    """What fits of the groups, and a figure about each row that is left out, its subject.

    Where every answer is a row, only those that are too long go, as long as `least` are left; a
    pair is one row and goes whole.
    """
    kept, figures = list[Group](), list[dict[str, Any]]()
    for group in groups:
        sizes = lengths(group)
        fits = [size <= context for size in sizes]
        apart = len(group.row_ids) == len(sizes)
        if not all(fits):
            fits = fits if apart and sum(fits) >= least else [False] * len(sizes)
            rows = (
                zip(group.row_ids, sizes, fits, strict=True)
                if apart
                else [(group.row_ids[0], max(sizes), False)]
            )
            figures += [
                {"subject": row, "name": TOO_LONG, "value": size, "unit": "tokens"}
                for row, size, fit in rows
                if not fit
            ]
        if any(fits):
            kept.append(group if all(fits) else _only(group, fits))
    return kept, figures


def say_left_out(
    figures: Sequence[dict[str, Any]], context: int, say: Callable[[str], None]
) -> None:
    """Tell the user how many rows were left out, if any were."""
    if figures:
        rows = f"{len(figures):,} rows are" if len(figures) > 1 else "1 row is"
        longest = max(figure["value"] for figure in figures)
        say(
            f"{rows} left out as too long: {longest:,} tokens at most, and the model's context "
            f"has {context:,}."
        )


def left_out_too_long(lake: Lake, version: str) -> set[str]:
    """The rows that the training of a model version left out."""
    return {
        row["subject"]
        for row in lake.rows(
            "SELECT subject FROM metrics WHERE version = ? AND name = ?", [version, TOO_LONG]
        )
    }


def why_unread(tokens: int, context: int) -> str | None:
    """Why a judge gives no verdict on so many tokens; None where it reads them."""
    return (
        None
        if tokens <= context
        else f"{tokens:,} tokens do not fit the judge's context of {context:,}"
    )


def _only(group: Group, fits: Sequence[bool]) -> Group:
    return replace(
        group,
        answers=tuple(compress(group.answers, fits)),
        row_ids=tuple(compress(group.row_ids, fits)),
        reference=None if group.reference is None else tuple(compress(group.reference, fits)),
        rewards=None if group.rewards is None else tuple(compress(group.rewards, fits)),
    )

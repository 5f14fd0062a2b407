"""The verdicts of several judges become those of one. Each member's are a dataset of their own, so
another weight judges nothing again.

    combine(prompts, verdicts of each member)                    ->  verdicts, one per completion
    combine_comparisons(prompts, completions, verdicts ...)      ->  verdicts, one per match
Test: pytest tests/flows/judges/test_judges.py
"""

from collections.abc import Iterator
from typing import Any

from dapflow.storage import DatasetRef, Lake
from dapflow.tasks.judging.combination import (
    Combination,
    combine_scores,
    combine_votes,
    vote,
    whitened,
)
from dapflow.tasks.judging.compare import comparison_row, unasked, write_steadiness
from dapflow.tasks.judging.judges.base import Verdict, verdict_of_row
from dapflow.tasks.judging.matches import Meeting, matches_expected
from dapflow.tasks.step import Out, step

_ROWS_PER_CHUNK = 10_000


@step(
    "verdicts",
    title="{combination}",
    expects=lambda verdicts, **_: verdicts[0].rows,
    activity="combining",
)
def combine(
    out: Out,
    prompts: DatasetRef,
    verdicts: list[DatasetRef],
    combination: Combination,
    whiten: bool,
) -> None:
    """A verdict on each completion, in the order of the first member's. verdicts: those of each
    member, in the order of the names.

    whiten: with mean 0 and standard deviation 1 over all of them, where the rule is to; not where
    two policies are to be compared.
    """
    unsafe = {row["id"]: bool(row["unsafe"]) for row in out.lake.rows_of(prompts)}
    rows = out.lake.rows_of(verdicts[0])
    members = [
        {row["completion_id"]: verdict_of_row(row) for row in out.lake.verdicts(ref)}
        for ref in verdicts
    ]
    found = [
        combine_scores(
            combination,
            {
                name: member.get(row["completion_id"])
                for name, member in zip(combination.names, members, strict=True)
            },
            unsafe[row["prompt_id"]],
        )
        for row in rows
    ]
    if whiten and combination.rule == "safety-first":
        found = whitened(found)
    judged = (
        {
            "prompt_id": row["prompt_id"],
            "completion_id": row["completion_id"],
            "judge": str(combination),
        }
        | {"outcome": verdict.outcome, "score": verdict.score, "note": verdict.note}
        for row, verdict in zip(rows, found, strict=True)
    )
    _write(out, judged)


@step("verdicts", title="{combination}", expects=matches_expected, activity="combining")
def combine_comparisons(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    other: DatasetRef | None,
    verdicts: list[DatasetRef],
    names: list[str],
    combination: Combination,
    seed: int,
) -> None:
    """A verdict on each match: of the first round of each prompt's completions, or of each
    completion with each of `other`.

    verdicts: of the member whose name stands in the same place; of a member that scores, on the
    completions of either side.
    """
    drawn = Meeting(completions=completions, other=other, seed=seed).matches(out.lake)
    members = {
        name: _Votes(
            out.lake, [ref for ref, owner in zip(verdicts, names, strict=True) if owner == name]
        )
        for name in names
    }
    rows = [
        comparison_row(
            (one, other_one),
            unasked(one, other_one)
            or combine_votes(
                combination,
                {
                    name: votes.on(one["id"], (other_one or one)["id"])
                    for name, votes in members.items()
                },
            ),
            str(combination),
        )
        for one, other_one in drawn
    ]
    chunks = _write(out, iter(rows))
    write_steadiness(out, chunks)


class _Votes:
    """What a member says of two completions, whether it compares or scores."""

    def __init__(self, lake: Lake, verdicts: list[DatasetRef]) -> None:
        rows = [row for ref in verdicts for row in lake.verdicts(ref)]
        self._compares = any(row["other_id"] is not None for row in rows)
        self._of = {(row["completion_id"], row["other_id"]): verdict_of_row(row) for row in rows}

    def on(self, one: str, other: str) -> Verdict | None:
        """Its verdict on the match; None where it has none."""
        return (
            self._of.get((one, other))
            if self._compares
            else vote(self._of.get((one, None)), self._of.get((other, None)))
        )


def _write(out: Out, rows: Iterator[dict[str, Any]]) -> int:
    """Write the rows under their ids; returns how many chunks that were."""
    numbered = [{"id": out.row_id(number), **row} for number, row in enumerate(rows)]
    chunks = [
        numbered[first : first + _ROWS_PER_CHUNK]
        for first in range(0, len(numbered), _ROWS_PER_CHUNK)
    ] or [[]]
    for number, chunk in enumerate(chunks):
        out.write(number, chunk)
    return len(chunks)

"""Who meets whom where a judge compares. Pure functions of rows.

Test: pytest tests/tasks/judging/test_matches.py
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from dapflow.storage import DatasetRef, Lake
from dapflow.tasks.seeds import generator

Row = Mapping[str, Any]
T = TypeVar("T")
Drawn = tuple[Row, Row | None]
"""Two completions that meet, or one alone that was refused at sampling."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Which completions meet.

    other: the other policy's, each of which meets one of `completions`; None: those of each prompt
    meet each other, by a draw from `seed`.
    acceptances: only what they accept meets.
    """

    completions: DatasetRef
    other: DatasetRef | None = None
    acceptances: DatasetRef | None = None
    seed: int = 0

    def matches(self, lake: Lake) -> list[Drawn]:
        """Who meets whom, and alone, what was refused at sampling."""
        if self.other is not None:
            return policy_matches(lake, self.other, self.completions)
        completions = lake.rows_of(self.completions)
        if self.acceptances is not None:
            rows = lake.rows_of(self.acceptances)
            accepted = {row["completion_id"] for row in rows if row["accepted"]}
            completions = [row for row in completions if row["id"] in accepted]
        return first_matches(completions, self.seed)


def first_matches(completions: Sequence[Row], seed: int) -> list[Drawn]:
    """The first round among each prompt's completions that ended, and among those that were cut off:
    a pair of both would be no label. And alone, what was refused at sampling.
    """
    of_prompt: dict[str, list[Row]] = defaultdict(list)
    for row in completions:
        of_prompt[row["prompt_id"]].append(row)
    matches: list[Drawn] = []
    for prompt_id, rows in of_prompt.items():
        rng = generator(seed, "pair", prompt_id.rsplit("-", 1)[1])
        able = with_texts_of_their_own(rows)
        for reason in ("stop", "length"):
            matches += first_round([row for row in able if row["finish_reason"] == reason], rng)
        matches += [(row, None) for row in rows if row["finish_reason"] == "refused"]
    return matches


def with_texts_of_their_own(completions: Sequence[Row]) -> list[Row]:
    """The completions that can be compared: not refused, and of equal texts the first."""
    first = {row["text"]: row for row in reversed(completions) if row["finish_reason"] != "refused"}
    return [row for row in completions if first.get(row["text"]) is row]


def first_round(candidates: Sequence[T], rng: Random) -> list[tuple[T, T]]:
    """Disjoint random pairs, n // 2 of them (RSO, first-round-rank, arXiv 2309.06657)."""
    order = rng.sample(list(candidates), len(candidates))
    return list(zip(order[::2], order[1::2], strict=False))


def policy_matches(lake: Lake, before: DatasetRef, after: DatasetRef) -> list[Drawn]:
    """Each answer of `after` with one of `before` to the same prompt: the n-th with the n-th,
    around the end where there are fewer.
    """
    old: dict[str, list[Row]] = defaultdict(list)
    for row in lake.rows_of(before):
        old[row["prompt_id"]].append(row)
    return [
        (new, others[new["sample"] % len(others)])
        for new in lake.rows_of(after)
        if (others := old[new["prompt_id"]])
    ]


def matches_expected(
    prompts: DatasetRef, completions: DatasetRef, other: DatasetRef | None = None, **_: Any
) -> int:
    """How many matches there will be at most: of the first round, or of each completion with one of
    `other`.
    """
    own = prompts.rows * (completions.rows // max(prompts.rows, 1) // 2)
    return own if other is None else completions.rows

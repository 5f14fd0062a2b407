"""RSO's statistical rejection sampling: which candidates survive as samples of the optimal policy.

    accept(completions, verdicts)  ->  acceptances (one row per completion, accepted or not, and why not)
Test: tests/tasks/pairing/test_acceptance.py
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef
from dapflow.tasks.pairing.work import accepting
from dapflow.tasks.seeds import generator
from dapflow.tasks.step import Out, contents_of, step


class Acceptance(BaseModel):
    """How candidates are thinned before they are paired."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rule: Literal["rso", "all", "best", "threshold"] = Field(
        default="rso",
        description=(
            "`rso`: Algorithm 1; `all`: every candidate (in a list those that ended); of those that "
            "ended, `best`: a prompt's best; `threshold`: those above it"
        ),
    )
    beta: float = Field(
        default=1.0,
        gt=0,
        description="temperature of exp(reward / beta); small keeps the best, large keeps any",
    )
    unit: Literal["sd", "score"] = Field(
        default="sd",
        description="of beta: `sd`, the standard deviation of the judge's scores within a prompt, "
        "or `score`, the judge's own",
    )
    keep: int = Field(default=8, ge=2, description="candidates that `rso` accepts per prompt")
    threshold: float = Field(
        default=0.7,
        ge=0,
        lt=1,
        description="share of all scored candidates that an accepted one must be above",
    )

    @property
    def most(self) -> int | None:
        """How many of a prompt's candidates it accepts at most; None where all may be."""
        return {"rso": self.keep, "best": 1}.get(self.rule)

    def in_scores(self, rewards: Iterable[Sequence[float]]) -> Self:
        """The same with beta in the judge's unit.

        rewards: the scores of each prompt's candidates; their standard deviation within a prompt is
        that of deviations from the prompt's mean, over all prompts. Where all are equal any beta
        will do.
        """
        groups = [group for group in rewards if len(group) > 1]
        free = sum(len(group) - 1 for group in groups)
        squares = sum((score - fmean(group)) ** 2 for group in groups for score in group)
        if self.unit == "score" or not squares:
            return self.model_copy(update={"unit": "score"})
        beta = self.beta * math.sqrt(squares / free)
        return self.model_copy(update={"beta": beta, "unit": "score"})


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A candidate's place in the input, and the sweep over the pool in which it was accepted."""

    index: int
    sweep: int


def rso_accept(rewards: Sequence[float], keep: int, beta: float, rng: Random) -> list[Accepted]:
    """Statistical rejection sampling without replacement (RSO, Algorithm 1, arXiv 2309.06657).

    rewards: one finite reward per candidate, in the reward model's unit; beta > 0 in the same unit.
    Candidates are visited in a random order, since a sweep ends as soon as `keep` are accepted.
    Returns min(keep, len(rewards)) of them, in the order of acceptance.
    """
    assert beta > 0 and all(math.isfinite(reward) for reward in rewards)
    pool = list(range(len(rewards)))
    rng.shuffle(pool)
    accepted: list[Accepted] = []
    sweep = 0
    while pool and len(accepted) < keep:
        best = max(rewards[index] for index in pool)
        for index in list(pool):
            if rng.random() < math.exp(
                (rewards[index] - best) / beta
            ):  # accept with probability exp((r - r_max) / beta)
                accepted.append(Accepted(index=index, sweep=sweep))
                pool.remove(index)
                if len(accepted) == keep:
                    break
        sweep += 1
    return accepted


@step(
    "acceptances",
    title="accept from {completions.rows} candidates",
    expects=lambda completions, **_: completions.rows,
    activity="accepting",
    work=lambda completions, acceptance, **_: accepting(
        contents_of(completions).prompts, [completions], acceptance.most
    ),
)
def accept(
    out: Out, completions: DatasetRef, verdicts: DatasetRef, acceptance: Acceptance, seed: int
) -> None:
    """One acceptance per completion. Duplicates and completions without a score cannot take part; a
    prompt needs two that can.
    """
    texts = {row["id"]: row for row in out.lake.rows_of(completions)}
    candidates = defaultdict[str, list[dict[str, Any]]](list)
    for verdict in out.lake.rows_of(verdicts):
        candidates[verdict["prompt_id"]].append(
            {**verdict, "text": texts[verdict["completion_id"]]["text"]}
        )
    scaled = acceptance.in_scores(map(scores_of, candidates.values()))
    rows: list[dict[str, Any]] = []
    for prompt_id, verdicts_of_prompt in candidates.items():
        rng = generator(seed, "accept", prompt_id.rsplit("-", 1)[1])
        rows += accept_for_prompt(verdicts_of_prompt, scaled, rng)
    if acceptance.rule == "rso" and (sentence := _late(rows)):
        out.say(sentence)
    out.write(0, [{"id": out.row_id(n), **row} for n, row in enumerate(rows)])


def scores_of(verdicts: Sequence[Mapping[str, Any]]) -> list[float]:
    """The scores of a prompt's candidates that can take part."""
    return [
        verdict["score"]
        for verdict, note in zip(verdicts, _notes(verdicts), strict=True)
        if note is None
    ]


def accept_for_prompt(
    verdicts: Sequence[Mapping[str, Any]], acceptance: Acceptance, rng: Random
) -> list[dict[str, Any]]:
    """The acceptance rows of one prompt, in the order of its verdicts. acceptance: with beta in the
    judge's unit.
    """
    notes = _notes(verdicts)
    able = [n for n, note in enumerate(notes) if note is None]
    if len(able) < 2:
        able, notes = [], [note or "too_few_candidates" for note in notes]
    rewards = [verdicts[n]["score"] for n in able]
    if acceptance.rule == "rso":
        taken = rso_accept(rewards, acceptance.keep, acceptance.beta, rng)
    else:
        taken = [Accepted(index=index, sweep=0) for index in range(len(able))]
    sweeps = {able[one.index]: one.sweep for one in taken}
    return [
        {
            "prompt_id": verdict["prompt_id"],
            "completion_id": verdict["completion_id"],
            "reward": verdict["score"],
        }
        | {"accepted": n in sweeps, "sweep": sweeps.get(n), "note": notes[n]}
        for n, verdict in enumerate(verdicts)
    ]


def _late(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What to say where most of the accepted came after the first sweep."""
    sweeps = [row["sweep"] for row in rows if row["accepted"]]
    first = sum(sweep == 0 for sweep in sweeps)
    if not sweeps or 2 * first >= len(sweeps):
        return None
    return (
        f"Only {first} of {len(sweeps)} accepted candidates came in the first sweep; the others "
        "are no draws from the tilted policy: sample more (sampling.n), keep fewer "
        "(acceptance.keep) or raise acceptance.beta."
    )


def _notes(verdicts: Sequence[Mapping[str, Any]]) -> list[str | None]:
    seen: set[str] = set()
    notes: list[str | None] = []
    for verdict in verdicts:
        if verdict["outcome"] != "scored":
            notes.append(verdict["outcome"])
        else:
            notes.append("duplicate" if verdict["text"] in seen else None)
            seen.add(verdict["text"])
    return notes

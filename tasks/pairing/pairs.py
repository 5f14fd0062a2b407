"""Accepted candidates become preference pairs. A pair that must not be trained on is kept with the
reason, never mislabelled.

    pair(prompts, completions, acceptances)  ->  pairs          pair_compared(prompts, completions, verdicts)  ->  pairs
Test: tests/tasks/pairing/test_pairs.py
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, UserError
from dapflow.tasks.judging import matches
from dapflow.tasks.seeds import generator
from dapflow.tasks.step import Contents, Out, Work, contents_of, step


class Pairing(BaseModel):
    """How the accepted candidates of a prompt meet."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rule: Literal["first-round", "tournament", "best-worst", "extremes", "contrast"] = Field(
        default="first-round",
        description="`first-round`: n/2 disjoint pairs; `tournament`: knockout, n-1 pairs; "
        "`best-worst`: one pair; `extremes`: the best against the worst, the second best against "
        "the second worst ...; `contrast`: each answer that scores 0 or less under a less likely "
        "one that scores more",
    )
    pairs: int = Field(default=2, ge=1, description="of a prompt's `extremes`, at most")

    def of(self, candidates: Sequence["Candidate"], rng: Random) -> list["Pair"]:
        """The pairs of a prompt's candidates, those that must not be trained on among them.

        Candidates that ended meet each other, and so do those that were cut off: a pair of both
        would be no label. Who is best and worst is asked of the larger group.
        """
        ended = [candidate for candidate in candidates if candidate.finished]
        cut = [candidate for candidate in candidates if not candidate.finished]
        if self.rule == "extremes":
            return extremes(max(ended, cut, key=len), rng, self.pairs)
        if self.rule == "best-worst":
            return extremes(max(ended, cut, key=len), rng, 1)
        return [pair for group in (ended, cut) for pair in RULES[self.rule](group, rng)]

    def most(self, candidates: int) -> int:
        """How many pairs so many candidates make at most."""
        halves = candidates // 2
        return {
            "first-round": halves,
            "tournament": max(candidates - 1, 0),
            "best-worst": min(1, halves),
            "extremes": min(self.pairs, halves),
            "contrast": halves,
        }[self.rule]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An accepted completion and its reward."""

    id: str
    text: str
    reward: float
    finished: bool  # it ended by itself rather than at the token limit
    logp: float = 0.0  # of its tokens under the policy that sampled it, nats


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two candidates in the order of preference, or, with `dropped`, not to be trained on."""

    chosen: Candidate
    rejected: Candidate
    dropped: str | None

    @property
    def margin(self) -> float:
        return self.chosen.reward - self.rejected.reward


def compare(a: Candidate, b: Candidate) -> Pair:
    """Label two candidates by their rewards. A tie, equal texts, or two of which exactly one is
    finished is no label: if only the finished one could win, a judge without any preference would
    teach to end early.
    """
    chosen, rejected = (a, b) if a.reward >= b.reward else (b, a)
    if a.text == b.text:
        dropped = "identical"
    elif a.reward == b.reward:
        dropped = "tie"
    elif rejected.finished != chosen.finished:
        dropped = "truncated"
    else:
        dropped = None
    return Pair(chosen=chosen, rejected=rejected, dropped=dropped)


def first_round(candidates: Sequence[Candidate], rng: Random) -> list[Pair]:
    """Disjoint random pairs, n // 2 of them (RSO, first-round-rank)."""
    return [compare(a, b) for a, b in matches.first_round(candidates, rng)]


def tournament(candidates: Sequence[Candidate], rng: Random) -> list[Pair]:
    """A knockout among the winners of each round, n - 1 pairs (RSO, tournament-rank). The one
    without an opponent goes on.
    """
    pairs: list[Pair] = []
    standing = rng.sample(list(candidates), len(candidates))
    while len(standing) > 1:
        met = [compare(a, b) for a, b in zip(standing[::2], standing[1::2], strict=False)]
        pairs += met
        standing = [pair.chosen for pair in met] + ([standing[-1]] if len(standing) % 2 else [])
    return pairs


def extremes(candidates: Sequence[Candidate], rng: Random, pairs: int) -> list[Pair]:
    """The best against the worst, the second best against the second worst, and so on: `pairs` of
    them at most. Equal ones at random.
    """
    order = sorted(rng.sample(candidates, len(candidates)), key=lambda candidate: candidate.reward)
    met = zip(reversed(order), order[: min(pairs, len(order) // 2)], strict=False)
    return [compare(best, worst) for best, worst in met]


def contrast(candidates: Sequence[Candidate], rng: Random) -> list[Pair]:
    """Good (reward above 0) against bad (CLICK, arXiv 2306.03350, section 3.3): a bad answer meets
    a good one that is less likely, of those the likeliest that is left, for it is there that the
    policy still has to change."""
    good = sorted(
        (one for one in candidates if one.reward > 0), key=lambda candidate: -candidate.logp
    )
    pairs: list[Pair] = []
    for bad in rng.sample(
        [one for one in candidates if one.reward <= 0], sum(one.reward <= 0 for one in candidates)
    ):
        if found := next((one for one in good if one.logp < bad.logp), None):
            good.remove(found)
            pairs.append(compare(found, bad))
    return pairs


RULES: dict[str, Callable[[Sequence[Candidate], Random], list[Pair]]] = {
    "first-round": first_round,
    "tournament": tournament,
    "contrast": contrast,
}


def _expected(prompts: DatasetRef, acceptances: DatasetRef, pairing: Pairing, **_: Any) -> int:
    accepted = contents_of(acceptances).rows // max(prompts.rows, 1)
    return prompts.rows * pairing.most(accepted)


def _pairing(rows: int, completions: DatasetRef) -> Work:
    sides = contents_of(completions)
    return Work(makes=Contents.of_pairs(rows, sides, sides))


@step(
    "pairs",
    title="pair {acceptances.rows} candidates",
    expects=_expected,
    activity="pairing",
    work=lambda completions, **others: _pairing(_expected(**others), completions),
)
def pair(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    acceptances: DatasetRef,
    pairing: Pairing,
    log_odds: bool,
    seed: int,
) -> None:
    """Pairs of the accepted completions of each prompt, in prompt order.

    log_odds: whether rewards are log-odds, so that pairs have the probability of their label.
    """
    texts = {row["id"]: row["prompt"] for row in out.lake.rows_of(prompts)}
    sampled = {row["id"]: row for row in out.lake.rows_of(completions)}
    if pairing.rule == "contrast" and not any(row["logprobs"] for row in sampled.values()):
        raise UserError(
            "pairing.rule=contrast needs the samples' log-probabilities, which their server does "
            "not tell: take another sampler."
        )
    candidates: dict[str, list[Candidate]] = defaultdict(list)
    for row in out.lake.rows_of(acceptances):
        if row["accepted"]:
            completion = sampled[row["completion_id"]]
            candidates[row["prompt_id"]].append(
                candidate_of(completion, row["reward"], sum(completion["logprobs"]))
            )
    rows: list[dict[str, Any]] = []
    for prompt_id, accepted in candidates.items():
        rng = generator(seed, "pair", prompt_id.rsplit("-", 1)[1])
        rows += scored_pairs(pairing, accepted, rng, prompt_id, texts[prompt_id], log_odds)
    out.write(0, [{"id": out.row_id(n), **row} for n, row in enumerate(rows)])


@step(
    "pairs",
    title="pair by {verdicts.rows} comparisons",
    expects=lambda verdicts, **_: verdicts.rows,
    activity="pairing",
    work=lambda completions, verdicts, **_: _pairing(verdicts.rows, completions),
)
def pair_compared(
    out: Out, prompts: DatasetRef, completions: DatasetRef, verdicts: DatasetRef
) -> None:
    """A pair for each comparison, in their order: the winner is chosen, with the judge's
    probability that it is better.
    """
    texts = {row["id"]: row["prompt"] for row in out.lake.rows_of(prompts)}
    sampled = {row["id"]: row for row in out.lake.rows_of(completions)}
    rows: list[dict[str, Any]] = []
    for verdict in out.lake.rows_of(verdicts):
        if verdict["other_id"] is not None:
            sides = sampled[verdict["completion_id"]], sampled[verdict["other_id"]]
            rows.append(compared_pair(*sides, verdict, texts[verdict["prompt_id"]]))
    out.write(0, [{"id": out.row_id(n), **row} for n, row in enumerate(rows)])


def scored_pairs(
    pairing: Pairing,
    candidates: Sequence[Candidate],
    rng: Random,
    prompt_id: str,
    prompt: str,
    log_odds: bool,
) -> list[dict[str, Any]]:
    """The pairs of a prompt's scored candidates as rows, without ids. log_odds: whether rewards
    are: then sigma of the margin is the probability that the chosen answer is the better one.
    """
    return [
        _row(match, prompt_id, prompt)
        | {"margin": match.margin, "source": pairing.rule}
        | {"probability": 1 / (1 + math.exp(-match.margin)) if log_odds else None}
        for match in pairing.of(candidates, rng)
    ]


def compared_pair(
    one: Mapping[str, Any], other: Mapping[str, Any], verdict: Mapping[str, Any], prompt: str
) -> dict[str, Any]:
    """The pair of two completions and the verdict on them as a row, without its id."""
    return (
        _row(match_of(one, other, verdict), one["prompt_id"], prompt)
        | _certainty(verdict)
        | {"source": "compared"}
    )


def match_of(one: Mapping[str, Any], other: Mapping[str, Any], verdict: Mapping[str, Any]) -> Pair:
    """Two completions in the order of a comparison's verdict, or dropped for what it was instead of
    a judgement.
    """
    score = verdict["score"]
    if score is None:
        return Pair(
            chosen=candidate_of(one, 0.0),
            rejected=candidate_of(other, 0.0),
            dropped=verdict["outcome"],
        )
    return compare(candidate_of(one, score), candidate_of(other, 1 - score))


def _certainty(verdict: Mapping[str, Any]) -> dict[str, Any]:
    score = verdict["score"]
    return (
        {"margin": None, "probability": None}
        if score is None
        else {"margin": abs(2 * score - 1), "probability": max(score, 1 - score)}
    )


def _row(match: Pair, prompt_id: str, prompt: str) -> dict[str, Any]:
    return (
        {"prompt_id": prompt_id, "prompt": prompt, "dropped": match.dropped}
        | {"chosen_id": match.chosen.id, "rejected_id": match.rejected.id}
        | {"chosen": match.chosen.text, "rejected": match.rejected.text}
    )


def candidate_of(completion: Mapping[str, Any], reward: float, logp: float = 0.0) -> Candidate:
    """A row of completions and its reward. logp: of its tokens under the policy that sampled it."""
    finished = completion["finish_reason"] == "stop"
    return Candidate(
        id=completion["id"], text=completion["text"], reward=reward, finished=finished, logp=logp
    )

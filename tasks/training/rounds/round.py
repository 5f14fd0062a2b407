"""What a round is made of: its prompts, completions of the weights as they are now, verdicts on
them, and what is trained on.

Rows in, rows out, without ids of their own; tasks/training/rounds/online.py makes a step of them.
Test: pytest tests/tasks/training/rounds/test_online.py
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.compare import asked_of, comparison_row, unasked
from dapflow.tasks.judging.judges.base import Comparer, scores_of
from dapflow.tasks.judging.matches import first_matches
from dapflow.tasks.judging.score import baselines_of, opened, question_of
from dapflow.tasks.judging.spec import JudgeSpec
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.names import Loaded
from dapflow.tasks.pairing.pairs import Pairing, candidate_of, compared_pair, scored_pairs
from dapflow.tasks.sampling.engines.base import Request, Sampling
from dapflow.tasks.sampling.engines.sampler import Prompter
from dapflow.tasks.sampling.engines.thoughts import Thoughts
from dapflow.tasks.sampling.engines.transformers import TransformersEngine
from dapflow.tasks.seeds import derive_seed, generator
from dapflow.tasks.step import Out
from dapflow.tasks.training.rounds.rewards import capped
from dapflow.tasks.training.settings import Rounds

Row = dict[str, Any]
Judging = Callable[[Sequence[Row]], tuple[list[Row], list[Row]]]
"""Completions of one round -> (verdicts, pairs or acceptances), without ids."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One of them: its prompts, and the place in the step's version of the first row of each kind
    that it writes.
    """

    number: int
    prompts: Sequence[Row]
    first: int


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How verdicts become what is trained on. log_odds: whether scores are."""

    lists: bool
    pairing: Pairing
    log_odds: bool
    seed: int


def batch_of(rows: Sequence[Row], rounds: Rounds, number: int, seed: int) -> list[Row]:
    """The prompts of a round: one permutation of all after the other."""
    size = min(rounds.prompts, len(rows))
    places = range(number * size, (number + 1) * size)
    orders: dict[int, list[int]] = {}
    for epoch in {place // len(rows) for place in places}:
        orders[epoch] = list(range(len(rows)))
        generator(seed, "rounds", epoch).shuffle(orders[epoch])
    return list(
        {
            row["id"]: row
            for row in (rows[orders[place // len(rows)][place % len(rows)]] for place in places)
        }.values()
    )


def sampled(out: Out, loaded: Loaded, this: Round, sampling: Sampling, seed: int) -> list[Row]:
    """Completions of the weights as they are now, prompt by prompt."""
    prompter = Prompter(
        sampling=sampling, tokenizer=loaded.tokenizer, context=context_length(loaded.model)
    )
    requests, seeds = list[Request](), dict[tuple[str, int], int]()
    for row in this.prompts:
        ids, refused = prompter.render(row["prompt"])
        if refused is None:
            own = tuple(
                derive_seed(seed, "round", this.number, row["digest"], sample)
                for sample in range(sampling.n)
            )
            seeds |= {(row["id"], sample): drawn for sample, drawn in enumerate(own)}
            requests.append(Request(prompt_id=row["id"], prompt_token_ids=ids, seeds=own))
    completions = sorted(
        TransformersEngine(loaded).generate(requests, sampling),
        key=lambda completion: (completion.prompt_id, completion.sample),
    )
    thoughts = Thoughts()
    thoughts.count(completions)
    if (warning := thoughts.warning()) and this.number == 0:  # once
        out.say(f"WARNING: {warning}")
    return [
        {
            "id": out.row_id(this.first + place),
            "prompt_id": completion.prompt_id,
            "sample": completion.sample,
            "policy": out.version,
            "text": completion.text,
            "token_ids": completion.token_ids,
            "logprobs": completion.logprobs,
            "finish_reason": completion.finish_reason,
            "seed": seeds[completion.prompt_id, completion.sample],
            "note": None,
        }
        for place, completion in enumerate(completions)
    ]


@contextmanager
def judging(
    out: Out,
    by: JudgeSpec,
    model: ModelRef | None,
    baseline: DatasetRef | None,
    prompts: Mapping[str, Row],
    labels: Labels,
) -> Iterator[Judging]:
    """Whoever judges, kept in memory for all rounds. prompts: their rows by id."""
    with opened(out, by, model, baselines_of(out.lake, prompts, baseline)) as judge:
        if by.compares:
            yield lambda completions: _compared(judge, prompts, completions, labels.seed)
            return

        def scored(completions: Sequence[Row]) -> tuple[list[Row], list[Row]]:
            asked = [question_of(prompts[row["prompt_id"]], row) for row in completions]
            scores = zip(completions, scores_of(judge, asked), strict=True)
            verdicts = [comparison_row((row, None), score, judge.name) for row, score in scores]
            return verdicts, _labelled(completions, verdicts, prompts, labels)

        yield scored


def _compared(
    judge: Comparer, prompts: Mapping[str, Row], completions: Sequence[Row], seed: int
) -> tuple[list[Row], list[Row]]:
    """A comparison of each prompt's answers, two at a time, in both orders."""
    drawn = (
        first_matches(completions, derive_seed(seed, completions[0]["id"])) if completions else []
    )
    known = [unasked(first, second) for first, second in drawn]
    compared = iter(list(judge.compare(asked_of(prompts, drawn))))
    verdicts = [
        comparison_row(match, verdict or next(compared), judge.name)
        for match, verdict in zip(drawn, known, strict=True)
    ]
    pairs = [
        compared_pair(first, second, verdict, prompts[first["prompt_id"]]["prompt"])
        for (first, second), verdict in zip(drawn, verdicts, strict=True)
        if second is not None
    ]
    return verdicts, pairs


def _labelled(
    completions: Sequence[Row],
    verdicts: Sequence[Row],
    prompts: Mapping[str, Row],
    labels: Labels,
) -> list[Row]:
    """Pairs of each prompt's scored answers, or all of them with their rewards."""
    scores = {row["completion_id"]: row["score"] for row in verdicts}
    if labels.lists:
        return list(_rewarded(completions, scores))
    pairs: list[Row] = []
    for prompt_id in dict.fromkeys(row["prompt_id"] for row in completions):
        own = [
            row
            for row in completions
            if row["prompt_id"] == prompt_id and scores[row["id"]] is not None
        ]
        candidates = [candidate_of(row, scores[row["id"]], sum(row["logprobs"])) for row in own]
        rng = generator(labels.seed, "pair", prompt_id, own[0]["id"] if own else "")
        text = prompts[prompt_id]["prompt"]
        pairs += scored_pairs(labels.pairing, candidates, rng, prompt_id, text, labels.log_odds)
    return pairs


def _rewarded(completions: Sequence[Row], scores: Mapping[str, float | None]) -> Iterator[Row]:
    """All with their rewards."""
    rewards = capped(completions, scores)
    for row in completions:
        reward = rewards.get(row["id"])
        yield {
            "prompt_id": row["prompt_id"],
            "completion_id": row["id"],
            "reward": reward,
            "sweep": None,
            "accepted": reward is not None,
            "note": "invalid" if reward is None else None,
        }

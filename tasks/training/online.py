"""Rounds: sample a batch, judge it, take one optimiser step, and again, with all models in memory. One step of the DAG is a group of rounds.

    train_online(policy, reference, prompts, by, sampling, rounds, ...)  ->  a model version; its completions, verdicts and pairs (or
    acceptances) are rows of that version, and its curves metrics of it
Killed at any moment it goes on from its last checkpoint, and ends with the same weights. Test: pytest tests/tasks/training/test_online.py
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from storage import DatasetRef, ModelRef, UserError
from tasks.chat import context_length
from tasks.comparing import asked_of, comparer_for, comparison_row, first_matches, unasked
from tasks.engines.base import Request, Sampling
from tasks.engines.sampler import Prompter
from tasks.engines.transformers import TransformersEngine
from tasks.judges.base import Comparer
from tasks.judges.llm import LLM
from tasks.judges.programs import Program
from tasks.judging import By, asked_prompts, judge_for, question_of
from tasks.models import Loaded, load_own, release, save
from tasks.pairing import Pairing, candidate_of, compared_pair, scored_pairs
from tasks.policy import load_policy, policy_path
from tasks.seeds import derive_seed, generator
from tasks.step import Out, step
from tasks.training import checkpoints
from tasks.training.answers import list_groups
from tasks.training.batches import Group
from tasks.training.fit import train_step
from tasks.training.freshness import age_figures
from tasks.training.logps import pick_scorer, sequence_logps
from tasks.training.logs import StepLog
from tasks.training.losses import Loss
from tasks.training.optimizer import pick_optimizer
from tasks.training.parameters import merge, trainable
from tasks.training.probe import save_probe
from tasks.training.ranks import ALONE
from tasks.training.settings import Training
from tasks.training.train import curve_rows, pair_groups, policy_row

Row = dict[str, Any]
Judging = Callable[[Sequence[Row]], tuple[list[Row], list[Row]]]
"""Completions of one round -> (verdicts, pairs or acceptances), without ids."""


class Rounds(BaseModel):
    """How an iteration of rounds goes: each is one optimiser step on fresh samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int = Field(default=24, ge=1, description="rounds of an iteration: sample, judge, one optimiser step")
    prompts: int = Field(default=8, ge=1, description="prompts of a round, the batch of its optimiser step")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How verdicts become what is trained on."""

    lists: bool
    pairing: Pairing


@step("models", title="{rounds.count} rounds with {loss.name}, judged by {by}", expects=lambda **_: 1)
def train_online(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    prompts: DatasetRef,
    by: By,
    baseline: DatasetRef | None,
    sampling: Sampling,
    rounds: Rounds,
    lists: bool,
    pairing: Pairing,
    loss: Loss,
    training: Training,
    seed: int,
) -> None:
    """Policy t -> policy t+1 by rounds on one set of prompts; a sample is never older than the weights it trains (lag 0).

    lists: train on a prompt's answers with their rewards, as policy gradients do; else on pairs by the pairing rule. Raises UserError
    when nothing could be learned from any round.
    """
    if not out.pending(_chunk(rounds.count, 1)):
        return
    asked = asked_prompts(out.lake, prompts, by)
    rows = list(asked.values())
    release()  # what earlier steps have left in memory is no model of this training
    loaded = load_own(policy_path(out.lake, policy), dtype=training.torch_dtype(torch.device("cpu")) if training.dtype != "auto" else None)
    model = trainable(loaded.model, training.parameters, training.lora_rank, seed)
    model.eval()
    scorer, optimizer = pick_scorer(model), pick_optimizer(model, training, seed)
    refer = _reference(out, reference, loaded.model.dtype) if loss.registered.needs_reference else None
    found = checkpoints.load(out.scratch)
    logs: list[dict[str, Any]] = [] if found is None else found[1]["logs"]
    begin = 0 if found is None else found[1]["step"]
    if found is not None:
        optimizer.load(found[0])
    with _judging(out, by, baseline, asked, Labels(lists=lists, pairing=pairing), seed) as judging:
        for number in range(begin, rounds.count):
            some = _batch(rows, rounds, number, seed)
            completions = _sampled(out, loaded, some, sampling, rounds, number, seed)
            verdicts, made = judging(completions)
            groups = _write(out, loaded, some, completions, verdicts, made, number, lists, sampling, rounds)
            if groups and refer is not None:
                groups = refer(groups)
            if groups:
                rate = training.learning_rate_at(number, rounds.count)
                log, _ = train_step(model, groups, loss, training, scorer, optimizer, rate, seed, number, 0, ALONE, False)
                logs.append(asdict(log))
            out.progress(number + 1, rounds.count, "rounds", f"{len(groups)} of {len(some)} prompts")
            if (number + 1) % training.checkpoint_every_steps == 0 or number + 1 == rounds.count:
                checkpoints.save(out.scratch, number + 1, optimizer.state(), {"logs": logs})
    if not logs:
        raise UserError("Nothing was learned: in no round was there a pair that was not a tie, identical, truncated or not judged.")
    if out.pending(_chunk(rounds.count, 0)):
        directory = out.scratch / "partial-policy"
        directory.mkdir(exist_ok=True)
        merged = merge(model)
        save(Loaded(model=merged, tokenizer=loaded.tokenizer), directory)
        save_probe(directory, merged)
        recipe = {"loss": loss.model_dump(), "training": training.model_dump(), "pairs": rounds.count * rounds.prompts, "steps": len(logs)}
        out.write(_chunk(rounds.count, 0), [policy_row(out, policy, reference, loss, directory, recipe)])
    curves = curve_rows(out, [asdict(StepLog.read(log)) for log in logs], age_figures([0], 1))  # every sample is of the weights it trains
    out.write(_chunk(rounds.count, 1), curves, table="metrics")


def _chunk(number: int, part: int) -> int:
    """Chunks of a round: its completions, its verdicts, what was made of them."""
    return 3 * number + part


def _batch(rows: Sequence[Row], rounds: Rounds, number: int, seed: int) -> list[Row]:
    """The prompts of a round: one permutation of all after the other."""
    size = min(rounds.prompts, len(rows))
    places = range(number * size, (number + 1) * size)
    orders: dict[int, list[int]] = {}
    for epoch in {place // len(rows) for place in places}:
        orders[epoch] = list(range(len(rows)))
        generator(seed, "rounds", epoch).shuffle(orders[epoch])
    return list({row["id"]: row for row in (rows[orders[place // len(rows)][place % len(rows)]] for place in places)}.values())


def _sampled(out: Out, loaded: Loaded, prompts: Sequence[Row], sampling: Sampling, rounds: Rounds, number: int, seed: int) -> list[Row]:
    """Completions of the weights as they are now, prompt by prompt."""
    prompter = Prompter(sampling=sampling, tokenizer=loaded.tokenizer, context=context_length(loaded.model))
    requests, seeds = list[Request](), dict[tuple[str, int], int]()
    for row in prompts:
        ids, refused = prompter.render(row["prompt"])
        if refused is None:
            own = tuple(derive_seed(seed, "round", number, row["digest"], sample) for sample in range(sampling.n))
            seeds |= {(row["id"], sample): one for sample, one in enumerate(own)}
            requests.append(Request(prompt_id=row["id"], prompt_token_ids=ids, seeds=own))
    answers = sorted(TransformersEngine(loaded).generate(requests, sampling), key=lambda one: (one.prompt_id, one.sample))
    first = number * rounds.prompts * sampling.n
    return [
        {"id": out.row_id(first + place), "prompt_id": one.prompt_id, "sample": one.sample, "policy": out.version, "text": one.text}
        | {"token_ids": one.token_ids, "logprobs": one.logprobs, "finish_reason": one.finish_reason}
        | {"seed": seeds[one.prompt_id, one.sample], "note": None}
        for place, one in enumerate(answers)
    ]


@contextmanager
def _judging(out: Out, by: By, baseline: DatasetRef | None, prompts: Mapping[str, Row], labels: Labels, seed: int) -> Iterator[Judging]:
    """Whoever judges, kept in memory for all rounds. prompts: their rows by id."""
    if isinstance(by, LLM | Program) and by.compares:
        with comparer_for(out, by) as judge:
            yield lambda completions: _compared(judge, prompts, completions, seed)
        return
    answers = [] if baseline is None else out.lake.rows_of(baseline)
    with judge_for(out, by, {prompts[row["prompt_id"]]["prompt"]: row["text"] for row in answers}) as judge:

        def scored(completions: Sequence[Row]) -> tuple[list[Row], list[Row]]:
            asked = [question_of(prompts[row["prompt_id"]], row) for row in completions]
            found = zip(completions, judge.judge(asked), strict=True)
            verdicts = [comparison_row((row, None), verdict, judge.name) for row, verdict in found]
            return verdicts, _labelled(completions, verdicts, prompts, labels, seed)

        yield scored


def _compared(judge: Comparer, prompts: Mapping[str, Row], completions: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """A comparison of each prompt's answers, two at a time, in both orders."""
    drawn = first_matches(completions, derive_seed(seed, completions[0]["id"])) if completions else []
    known = [unasked(one, other) for one, other in drawn]
    found = iter(list(judge.compare(asked_of(prompts, drawn))))
    verdicts = [comparison_row(match, done or next(found), judge.name) for match, done in zip(drawn, known, strict=True)]
    pairs = [
        compared_pair(one, other, verdict, prompts[one["prompt_id"]]["prompt"])
        for (one, other), verdict in zip(drawn, verdicts, strict=True)
        if other is not None
    ]
    return verdicts, pairs


def _labelled(completions: Sequence[Row], verdicts: Sequence[Row], prompts: Mapping[str, Row], labels: Labels, seed: int) -> list[Row]:
    """Pairs of each prompt's scored answers, or all of them with their rewards."""
    scores = {row["completion_id"]: row["score"] for row in verdicts}
    if labels.lists:
        return [
            {"prompt_id": row["prompt_id"], "completion_id": row["id"], "reward": scores[row["id"]], "sweep": None}
            | {"accepted": scores[row["id"]] is not None, "note": None if scores[row["id"]] is not None else "invalid"}
            for row in completions
        ]
    pairs: list[Row] = []
    for prompt_id in dict.fromkeys(row["prompt_id"] for row in completions):
        own = [row for row in completions if row["prompt_id"] == prompt_id and scores[row["id"]] is not None]
        candidates = [candidate_of(row, scores[row["id"]], sum(row["logprobs"])) for row in own]
        rng = generator(seed, "pair", prompt_id, own[0]["id"] if own else "")
        pairs += scored_pairs(labels.pairing.rule, candidates, rng, prompt_id, prompts[prompt_id]["prompt"])
    return pairs


def _write(
    out: Out, loaded: Loaded, prompts: Sequence[Row], completions: Sequence[Row], verdicts: Sequence[Row], made: Sequence[Row],
    number: int, lists: bool, sampling: Sampling, rounds: Rounds,
) -> list[Group]:  # fmt: skip
    """The round's rows into the lake, and what is trained on as groups."""
    first = number * rounds.prompts * sampling.n
    made = [{"id": out.row_id(first + place), **row} for place, row in enumerate(made)]
    out.write(_chunk(number, 0), completions, table="completions")
    out.write(_chunk(number, 1), [{"id": out.row_id(first + place), **row} for place, row in enumerate(verdicts)], table="verdicts")
    out.write(_chunk(number, 2), made, table="acceptances" if lists else "pairs")
    sampled = {row["id"]: row for row in completions}
    if not lists:
        kept = [row for row in made if row["dropped"] is None]
        return pair_groups(loaded, kept, sampled, sampling.system, sampling.chat_template)
    texts = {row["id"]: row["prompt"] for row in prompts}
    return list_groups(loaded, [row for row in made if row["accepted"]], texts, sampled, 2, sampling.system, sampling.chat_template)


def _reference(out: Out, reference: ModelRef, dtype: torch.dtype) -> Callable[[Sequence[Group]], list[Group]]:
    """The groups with the reference's log-probs, group by group: its model stays in memory."""
    model = load_policy(out.lake, reference, dtype).model
    scorer = pick_scorer(model)

    @torch.no_grad()
    def refer(groups: Sequence[Group]) -> list[Group]:
        return [replace(group, reference=tuple(sequence_logps(model, [group], scorer)[0].tolist())) for group in groups]

    return refer

"""Rounds: sample a batch, judge it, train on it, and again, with all models in memory. One step of
the DAG is a group of rounds.

    train_online(policy, reference, prompts, by, sampling, rounds, ...)  ->  a model version; its completions, verdicts and pairs (or
    acceptances) are rows of that version, and its curves metrics of it
What a round is made of is in rounds.py, what learns from it in learner.py. Killed at any moment it
goes on from its last checkpoint, and ends with the same weights. Test: pytest
tests/tasks/training/rounds/test_online.py
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.judging.score import asked_prompts
from dapflow.tasks.judging.spec import JudgeSpec
from dapflow.tasks.models.names import Loaded, load_own, release, save
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.groups import pair_groups
from dapflow.tasks.models.parameters import merge, trainable
from dapflow.tasks.models.policy import load_policy, policy_path
from dapflow.tasks.models.probe import save_probe
from dapflow.tasks.pairing.pairs import Pairing
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.step import Out, step
from dapflow.tasks.training import checkpoints
from dapflow.tasks.training.answers import list_groups, lists_of
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.rounds.critic import Critic
from dapflow.tasks.training.rounds.freshness import lag_figures, require_fresh
from dapflow.tasks.training.rounds.learner import Learner
from dapflow.tasks.training.rounds.round import Labels, Row, batch_of, judging, sampled
from dapflow.tasks.training.settings import Rounds, Training
from dapflow.tasks.training.train import curve_rows, policy_row
from dapflow.tasks.training.work import rounds_of


@step(
    "models",
    title="{rounds.count} rounds with {loss.name}, judged by {by}",
    expects=lambda **_: 1,
    activity="training",
    work=lambda by, prompts, sampling, rounds, loss, **_: rounds_of(
        by, prompts, sampling, rounds, models=1 + loss.registered.needs_values
    ),
)
def train_online(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    prompts: DatasetRef,
    by: JudgeSpec,
    model: ModelRef | None,
    baseline: DatasetRef | None,
    sampling: Sampling,
    rounds: Rounds,
    lists: bool,
    pairing: Pairing,
    loss: Loss,
    training: Training,
    seed: int,
) -> None:
    """Policy t -> policy t+1 by rounds on one set of prompts. With one optimiser step a round a
    sample is never older than the weights it trains (lag 0); with more, it is older by the steps of
    its round.

    lists: train on a prompt's answers with their rewards, as policy gradients do; else on pairs by
    the pairing rule. Raises UserError when nothing could be learned from any round.
    """
    if not out.pending(_chunk(rounds.count, 1)):
        return
    asked = asked_prompts(out.lake, prompts, by)
    require_fresh(_steps_of_a_round(rounds, len(asked), lists) - 1, training.max_lag)
    loaded, learner = _models(out, policy, reference, loss, training, rounds, seed)
    found = checkpoints.load(out.scratch)
    logs: list[dict[str, Any]] = [] if found is None else found[1]["logs"]
    begin = 0 if found is None else found[1]["step"]
    if found is not None:
        learner.load(found[0])
    with judging(
        out, by, model, baseline, asked, Labels(lists=lists, pairing=pairing), seed
    ) as judge:
        for number in range(begin, rounds.count):
            some = batch_of(list(asked.values()), rounds, number, seed)
            completions = sampled(out, loaded, some, sampling, rounds, number, seed)
            verdicts, made = judge(completions)
            _write(
                out,
                completions,
                verdicts,
                made,
                number,
                lists,
                number * rounds.prompts * sampling.n,
            )
            groups = _groups(
                out,
                loaded,
                some,
                completions,
                made,
                loss,
                lists,
                sampling,
                number * rounds.prompts * sampling.n,
            )
            logs += [asdict(log) for log in learner.learn(groups, number)] if groups else []
            out.progress(
                number + 1, rounds.count, "rounds", f"{len(groups)} of {len(some)} prompts"
            )
            if (number + 1) % training.checkpoint_every_steps == 0 or number + 1 == rounds.count:
                checkpoints.save(out.scratch, number + 1, learner.state(), {"logs": logs})
    if not logs:
        some = (
            "an answer that was given a reward"
            if lists
            else "a pair that was not a tie, identical, truncated or not judged"
        )
        raise UserError(f"Nothing was learned: in no round was there {some}.")
    if out.pending(_chunk(rounds.count, 0)):
        directory = _saved(out, loaded, learner)
        recipe = {
            "loss": loss.model_dump(),
            "training": training.model_dump(),
            "pairs": rounds.count * rounds.prompts,
            "steps": len(logs),
        }
        out.write(
            _chunk(rounds.count, 0), [policy_row(out, policy, reference, loss, directory, recipe)]
        )
    curves = curve_rows(
        out,
        [asdict(StepLog.read(log)) for log in logs],
        lag_figures([log["step"] % rounds.steps for log in logs]),
    )
    out.write(_chunk(rounds.count, 1), curves, table="metrics")


def _steps_of_a_round(rounds: Rounds, prompts: int, lists: bool) -> int:
    """At most: a mini-batch has at least a group, and of answers in lists a prompt makes one."""
    return rounds.epochs * (
        min(rounds.minibatches, rounds.prompts, prompts) if lists else rounds.minibatches
    )


def _chunk(number: int, part: int) -> int:
    """Chunks of a round: its completions, its verdicts, what was made of them."""
    return 3 * number + part


def _models(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    loss: Loss,
    training: Training,
    rounds: Rounds,
    seed: int,
) -> tuple[Loaded, Learner]:
    """The policy that samples, and what trains it where it lies, with what its loss needs beside
    it.
    """
    path, needs = policy_path(out.lake, policy), loss.registered
    dtype = training.torch_dtype(torch.device("cpu")) if training.dtype != "auto" else None
    release()  # what earlier steps have left in memory is no model of this training
    loaded = load_own(path, dtype=dtype)
    model = trainable(loaded.model, training.parameters, training.lora_rank, seed)
    fixed = (
        load_policy(out.lake, reference, loaded.model.dtype).model
        if needs.needs_reference
        else None
    )
    critic = (
        Critic(load_own(path, dtype=dtype).model, training, seed) if needs.needs_values else None
    )
    return loaded, Learner(model, fixed, critic, loss, training, rounds, seed)


def _write(
    out: Out,
    completions: Sequence[Row],
    verdicts: Sequence[Row],
    made: Sequence[Row],
    number: int,
    lists: bool,
    first: int,
) -> None:
    """The round's rows into the lake. first: the place of the first of them."""
    out.write(_chunk(number, 0), completions, table="completions")
    out.write(_chunk(number, 1), _numbered(out, verdicts, first), table="verdicts")
    out.write(
        _chunk(number, 2), _numbered(out, made, first), table="acceptances" if lists else "pairs"
    )


def _numbered(out: Out, rows: Sequence[Row], first: int) -> list[Row]:
    return [{"id": out.row_id(first + place), **row} for place, row in enumerate(rows)]


def _groups(
    out: Out, loaded: Loaded, prompts: Sequence[Row], completions: Sequence[Row], made: Sequence[Row], loss: Loss, lists: bool,
    sampling: Sampling, first: int,
) -> list[Group]:  # fmt: skip
    """What is trained on, as token ids: pairs, or each prompt's answers with their rewards."""
    rows, answers = _numbered(out, made, first), {row["id"]: row for row in completions}
    if not lists:
        kept = [row for row in rows if row["dropped"] is None]
        return pair_groups(loaded, kept, answers, sampling.system, sampling.chat_template)
    texts = {row["id"]: row["prompt"] for row in prompts}
    ranked = lists_of([row for row in rows if row["accepted"]], texts, loss.registered.answers)
    return list_groups(loaded, ranked, texts, answers, sampling.system, sampling.chat_template)


def _saved(out: Out, loaded: Loaded, learner: Learner) -> Path:
    """A directory with the policy as it is now."""
    directory = out.scratch / "partial-policy"
    directory.mkdir(exist_ok=True)
    merged = merge(learner.model)
    save(Loaded(model=merged, tokenizer=loaded.tokenizer), directory)
    save_probe(directory, merged)
    return directory

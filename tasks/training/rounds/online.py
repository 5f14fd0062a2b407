"""Rounds: sample a batch, judge it, train on it, and again, with all models in memory. One step of
the DAG is a group of rounds.

    train_online(policy, reference, prompts, by, sampling, rounds, ...)  ->  a model version; its
    completions, verdicts and pairs (or acceptances) are rows of that version, its curves metrics
What a round is made of is in round.py, what learns from it in learner.py. Killed at any moment it
goes on from its last checkpoint, and ends with the same weights. Test: pytest
tests/tasks/training/rounds/test_online.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from dapflow.tasks.training.curves import curve_rows
from dapflow.tasks.training.learn import Course, policy_row
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer_step import Trainer
from dapflow.tasks.training.rounds.critic import Critic
from dapflow.tasks.training.rounds.freshness import lag_figures, require_fresh
from dapflow.tasks.training.rounds.learner import Learner
from dapflow.tasks.training.rounds.rewards import cut_off_figures, cut_off_variance
from dapflow.tasks.training.rounds.round import Labels, Round, Row, batch_of, judging, sampled
from dapflow.tasks.training.set_aside import Ending
from dapflow.tasks.training.settings import Rounds, Training
from dapflow.tasks.training.work import rounds_of


@step(
    "models",
    title="{rounds.count} rounds with {loss.name}, judged by {by}",
    expects=lambda **_: 1,
    activity="training",
    work=lambda by, prompts, sampling, rounds, loss, **_: rounds_of(
        by, prompts, sampling, rounds, models=1 + loss.needs_values
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
    chunks = _Chunks(rounds=rounds.count)
    if not out.pending(chunks.curves):
        return
    asked = asked_prompts(out.lake, prompts, by)
    require_fresh(_steps_of_a_round(rounds, len(asked), lists) - 1, training.max_lag)
    course = Course(policy=policy, reference=reference, loss=loss, training=training, seed=seed)
    loaded, learner = _models(out, course, rounds)
    logs, begin = _resume(out, learner)
    labelling = Labels(lists=lists, pairing=pairing, log_odds=by.unit == "log-odds", seed=seed)
    with judging(out, by, model, baseline, asked, labelling) as judge:
        for number in range(begin, rounds.count):
            this = Round(
                number=number,
                prompts=batch_of(list(asked.values()), rounds, number, seed),
                first=number * rounds.prompts * sampling.n,
            )
            completions = sampled(out, loaded, this, sampling, seed)
            verdicts, labels = (_numbered(out, rows, this.first) for rows in judge(completions))
            tables = {
                "completions": completions,
                "verdicts": verdicts,
                "acceptances" if lists else "pairs": labels,
            }
            for chunk, (table, rows) in zip(chunks.of_round(number), tables.items(), strict=True):
                out.write(chunk, rows, table=table)
            answers = {row["id"]: row for row in completions}
            groups = (
                _lists(loaded, this, labels, answers, sampling, loss.answers)
                if lists
                else _pairs(loaded, labels, answers, sampling)
            )
            share = _cut_off_variance(labels, verdicts) if lists else None
            taken = learner.learn(groups, number) if groups else []
            logs += [asdict(replace(log, cut_off_variance=share)) for log in taken]
            note = f"{len(groups)} of {len(this.prompts)} prompts"
            out.progress(number + 1, rounds.count, "rounds", note)
            if (number + 1) % training.checkpoint_every_steps == 0 or number + 1 == rounds.count:
                checkpoints.save(out.scratch, number + 1, learner.state(), {"logs": logs})
    if not logs:
        raise UserError(f"Nothing was learned: in no round was there {_WANTED[lists]}.")
    if out.pending(chunks.policy):
        directory, pairs = _saved(out, loaded, learner), rounds.count * rounds.prompts
        ending = Ending.of([StepLog.read(log) for log in logs], training)
        out.write(chunks.policy, [policy_row(out, course, directory, pairs, ending)])
    lags = lag_figures([log["step"] % rounds.steps for log in logs])
    figures = [*lags, *cut_off_figures(logs, rounds.steps)]
    curves = curve_rows(out, [asdict(StepLog.read(log)) for log in logs], figures)
    out.write(chunks.curves, curves, table="metrics")


_WANTED = {
    True: "an answer that was given a reward",
    False: "a pair that was not a tie, identical, truncated or not judged",
}
"""By `lists`: what a round needs to learn anything."""


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """The numbers of the chunks that are committed: three of each round, and the last two."""

    rounds: int

    def of_round(self, number: int) -> range:
        """Its completions, its verdicts, what was made of them."""
        return range(3 * number, 3 * number + 3)

    @property
    def policy(self) -> int:
        return 3 * self.rounds

    @property
    def curves(self) -> int:
        return 3 * self.rounds + 1


def _steps_of_a_round(rounds: Rounds, prompts: int, lists: bool) -> int:
    """At most: a mini-batch has at least a group, and of answers in lists a prompt makes one."""
    return rounds.epochs * (
        min(rounds.minibatches, rounds.prompts, prompts) if lists else rounds.minibatches
    )


def _models(out: Out, course: Course, rounds: Rounds) -> tuple[Loaded, Learner]:
    """The policy that samples, and what trains it where it lies, with what its loss needs beside
    it.
    """
    path, loss = policy_path(out.lake, course.policy), course.loss
    training, seed = course.training, course.seed
    dtype = training.torch_dtype(torch.device("cpu")) if training.dtype != "auto" else None
    release()  # what earlier steps have left in memory is no model of this training
    loaded = load_own(path, dtype=dtype)
    model = trainable(loaded.model, training.parameters, training.lora_rank, seed)
    reference, critic = None, None
    if loss.needs_reference:
        reference = load_policy(out.lake, course.reference, loaded.model.dtype).model
    if loss.needs_values:
        critic = Critic(load_own(path, dtype=dtype).model, training, seed)
    trainer = Trainer.alone(model, loss, training, seed)
    return loaded, Learner(trainer, rounds, reference, critic)


def _resume(out: Out, learner: Learner) -> tuple[list[dict[str, Any]], int]:
    """The logs of the rounds that are done, and how many they are; their state is taken up."""
    checkpoint = checkpoints.load(out.scratch)
    if checkpoint is None:
        return [], 0
    tensors, state = checkpoint
    learner.load(tensors)
    return state["logs"], state["step"]


def _cut_off_variance(labels: Sequence[Row], verdicts: Sequence[Row]) -> float:
    scores = {row["completion_id"]: row["score"] for row in verdicts}
    return cut_off_variance([row for row in labels if row["accepted"]], scores)


def _numbered(out: Out, rows: Sequence[Row], first: int) -> list[Row]:
    return [{"id": out.row_id(first + place), **row} for place, row in enumerate(rows)]


def _pairs(
    loaded: Loaded, pairs: Sequence[Row], answers: Mapping[str, Row], sampling: Sampling
) -> list[Group]:
    """The pairs as token ids. answers: by id."""
    kept = [row for row in pairs if row["dropped"] is None]
    return pair_groups(loaded, kept, answers, sampling.system, sampling.chat_template)


def _lists(
    loaded: Loaded,
    this: Round,
    acceptances: Sequence[Row],
    answers: Mapping[str, Row],
    sampling: Sampling,
    least: int,
) -> list[Group]:
    """Each prompt's answers with their rewards as token ids, where there are `least`."""
    texts = {row["id"]: row["prompt"] for row in this.prompts}
    ranked = lists_of([row for row in acceptances if row["accepted"]], texts, least)
    return list_groups(loaded, ranked, texts, answers, sampling.system, sampling.chat_template)


def _saved(out: Out, loaded: Loaded, learner: Learner) -> Path:
    """A directory with the policy as it is now."""
    directory = out.scratch / "partial-policy"
    directory.mkdir(exist_ok=True)
    merged = merge(learner.model)
    save(Loaded(model=merged, tokenizer=loaded.tokenizer), directory)
    save_probe(directory, merged)
    return directory

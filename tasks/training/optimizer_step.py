"""One optimiser step of a training, and what is logged of it.

    trainer = Trainer.alone(model, loss, settings, seed)
    log = train_step(trainer, batch, Moment(step=0, learning_rate=1e-5))
Several processes share the batch: each sums up what it finds of its groups. Test: pytest
tests/tasks/training/test_fit.py
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import Scorer, pick_scorer, sum_by_answer
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.training.logs import StepLog, displacement, means, models_held, peak_memory_gib
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer.optimizer import Optimizer, pick_optimizer
from dapflow.tasks.training.processes.ranks import ALONE, Ranks
from dapflow.tasks.training.settings import Training


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What is the same in every step of a training. The model's dropout is off."""

    model: PreTrainedModel
    loss: Loss
    settings: Training
    scorer: Scorer
    optimizer: Optimizer
    seed: int
    ranks: Ranks = ALONE

    @classmethod
    def alone(cls, model: PreTrainedModel, loss: Loss, settings: Training, seed: int) -> Self:
        """For a model as it lies, in this process."""
        return cls(
            model=model.eval(),
            loss=loss,
            settings=settings,
            scorer=pick_scorer(model),
            optimizer=pick_optimizer(model, settings, seed),
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Which step it is."""

    step: int
    learning_rate: float
    epoch: int = 0


class Sums:
    """What the processes find of a batch, in one tensor, which is zero where another has the group:
    so one exchange adds all up.

    logps: of each group's answers, [answers]; terms: of the loss of each group, [terms, groups];
    ratios: two figures of actor-critic losses and entropy: sums over the tokens of the answers, [2]
    and [1].
    """

    def __init__(self, batch: Sequence[Group], loss: Loss, device: torch.device) -> None:
        answers = [len(group.answers) for group in batch]
        sizes = [sum(answers), len(loss.terms) * len(batch), 2, 1]
        self._all = torch.zeros(sum(sizes), device=device)
        logps, terms, self.ratios, self.entropy = self._all.split(sizes)
        self.logps, self.terms = logps.split(answers), terms.view(-1, len(batch))

    def add_up(self, ranks: Ranks) -> None:
        """Over all processes."""
        ranks.add_up([self._all])


def train_step(trainer: Trainer, batch: Sequence[Group], moment: Moment) -> StepLog:
    """Take it. Raises UserError that names the rows where a loss or gradient is not finite."""
    start = time.perf_counter()
    sums = Sums(batch, trainer.loss, trainer.model.device)
    for part in trainer.ranks.parts(batch, trainer.settings.tokens_per_microbatch):
        groups = [batch[index] for index in part.indices]
        logps, entropies = _score(trainer, groups, batch, moment.step)
        terms = torch.cat([trainer.loss.each(group) for group in logps], dim=1)
        losses = trainer.loss.weighed(terms)
        check_finite(losses.sum().item(), groups, moment.step)
        # of the whole batch, so that micro-batches do not change the mean
        (part.weight * losses.sum() / len(batch)).backward()
        if part.weight:
            _collect(sums, part.indices, logps, terms, trainer.loss)
            sums.entropy += entropies.sum()
    sums.add_up(trainer.ranks)
    norm = trainer.optimizer.step(moment.learning_rate)
    check_finite(norm, batch, moment.step)
    return _log(trainer, batch, moment, sums, norm, start)


@torch.no_grad()
def observe(
    trainer: Trainer, groups: Sequence[Group], step: int
) -> tuple[float, dict[str, float | None]]:
    """The loss of groups that are not trained on, and how their answers fare (`means`), after the
    step. Raises UserError where the loss is not finite.
    """
    sums = Sums(groups, trainer.loss, trainer.model.device)
    for part in trainer.ranks.parts(groups, trainer.settings.tokens_per_microbatch):
        own = [groups[index] for index in part.indices]
        # as at step 0, so that all looks draw their other tokens alike
        logps, _ = _score(trainer, own, groups, step=0)
        if part.weight:
            terms = torch.cat([trainer.loss.each(group) for group in logps], dim=1)
            _collect(sums, part.indices, logps, terms, trainer.loss)
    sums.add_up(trainer.ranks)
    loss = (trainer.loss.weighed(sums.terms).sum() / len(groups)).item()
    check_finite(loss, groups, step)
    return loss, means(groups, sums.logps)


def _collect(
    sums: Sums, indices: Sequence[int], logps: Sequence[Logps], terms: Tensor, loss: Loss
) -> None:
    critic = loss.critic
    for index, group, values in zip(indices, logps, terms.detach().T, strict=True):
        sums.terms[:, index].copy_(values)
        sums.logps[index].copy_(group.policy[0].detach())
        if critic is not None:
            assert group.tokens is not None and group.experience is not None
            sums.ratios.add_(critic.ratio_figures(group.tokens, group.experience.logps))


def _log(
    trainer: Trainer,
    batch: Sequence[Group],
    moment: Moment,
    sums: Sums,
    norm: float,
    start: float,
) -> StepLog:
    """start: of the step, by `time.perf_counter`."""
    tokens = sum(len(answer) for group in batch for answer in group.answers)
    clip_fraction, approx_kl = (
        (sums.ratios / tokens).tolist() if trainer.loss.needs_values else (None, None)
    )
    measured: dict[str, Any] = means(batch, sums.logps)
    seconds = time.perf_counter() - start
    models, model_bytes = models_held(moment.step)
    return StepLog(
        step=moment.step,
        epoch=moment.epoch,
        loss=(trainer.loss.weighed(sums.terms).sum() / len(batch)).item(),
        terms=_terms(trainer.loss, sums.terms),
        logp_chosen=math.fsum(policy[0].item() for policy in sums.logps) / len(batch),
        **measured,
        entropy=sums.entropy.item() / tokens,
        clip_fraction=clip_fraction,
        approx_kl=approx_kl,
        gradient_norm=norm,
        learning_rate=moment.learning_rate,
        tokens_per_second=sum(group.tokens for group in batch) / seconds,
        peak_memory_gib=peak_memory_gib(trainer.model.device),
        models=models,
        model_bytes=model_bytes,
        warnings=displacement(measured["reward_chosen"], trainer.settings),
    )


def _terms(loss: Loss, terms: Tensor) -> dict[str, float]:
    """The mean of each term over the groups, by name, before its weight; empty of a single loss,
    which says it itself.
    """
    if len(loss.terms) == 1:
        return {}
    means = terms.mean(dim=1).tolist()
    return {term.name: value for term, value in zip(loss.terms, means, strict=True)}


def _score(
    trainer: Trainer, groups: Sequence[Group], batch: Sequence[Group], step: int
) -> tuple[list[Logps], Tensor]:
    """What the loss sees of each group of a micro-batch, [1, answers], which may differ in length
    between groups; and the entropies, [tokens].
    """
    draw, alternatives = None, trainer.loss.alternatives
    if alternatives is not None:
        seed = derive_seed(trainer.seed, "alternatives", step, *groups[0].row_ids)
        random = torch.Generator(trainer.model.device).manual_seed(seed)
        draw = partial(alternatives.draw, random=random)
    tokens, entropies = trainer.scorer(trainer.model, groups, draw)
    penalties = (
        None
        if alternatives is None
        else sum_by_answer(alternatives.penalty(tokens[0], tokens[1]), groups)
    )
    policies = sum_by_answer(tokens[0], groups)
    by_group = tokens[0].split([sum(map(len, group.answers)) for group in groups])
    length = sum(len(answer) for group in batch for answer in group.answers[:2]) / len(batch)

    def row(values: Sequence[float] | None) -> Tensor | None:
        return None if values is None else tokens.new_tensor([values])

    logps = [
        Logps(
            policy=policies[index][None],
            length=tokens.new_tensor([[len(answer) for answer in group.answers]]),
            reference=row(group.reference),
            rewards=row(group.rewards),
            cringe=None if penalties is None else penalties[index][None],
            preference=None if group.preference is None else tokens.new_tensor([group.preference]),
            batch_length=tokens.new_tensor([length]),
            tokens=by_group[index] if trainer.loss.needs_values else None,
            experience=group.experience,
        )
        for index, group in enumerate(groups)
    ]
    return logps, entropies


def check_finite(value: float, groups: Sequence[Group], step: int) -> None:
    """Raises UserError that names the rows of what is not finite."""
    if not math.isfinite(value):
        rows = ", ".join(row for group in groups for row in group.row_ids)
        raise UserError(
            f"The loss or its gradient is not finite at step {step}; "
            f"look at these rows or lower the learning rate: {rows}."
        )

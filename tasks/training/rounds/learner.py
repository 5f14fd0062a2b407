"""What learns from the groups of a round: the policy, its reference, and where the loss asks for
values also a value model. All in memory.

    learner = Learner(model, reference, critic, loss, training, rounds, seed)
    logs = learner.learn(groups, number)          one optimiser step, or rounds.epochs x rounds.minibatches
Its state are plain tensors, from which it goes on to the bit. Test: pytest
tests/tasks/training/rounds/test_learner.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import attention_of, pick_scorer, sum_by_answer
from dapflow.tasks.models.parameters import checkpointed
from dapflow.tasks.seeds import generator
from dapflow.tasks.training.fit import train_step
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.needs import ActorCritic, Sampled
from dapflow.tasks.training.optimizer.optimizer import pick_optimizer
from dapflow.tasks.training.processes.ranks import ALONE
from dapflow.tasks.training.rounds.critic import Critic, explained_variance
from dapflow.tasks.training.settings import Rounds, Training

_CRITIC = "critic/"


class Learner:
    """Trains `model` in place. reference, critic: where the loss needs them, else None. Dropout is
    off.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reference: PreTrainedModel | None,
        critic: Critic | None,
        loss: Loss,
        training: Training,
        rounds: Rounds,
        seed: int,
    ) -> None:
        self.model, self._reference, self._critic = model.eval(), reference, critic
        self._loss, self._training, self._rounds, self._seed = loss, training, rounds, seed
        self._scorer, self._optimizer = pick_scorer(model), pick_optimizer(model, training, seed)
        self._reference_scorer = self._scorer if reference is None else pick_scorer(reference)

    def learn(self, groups: Sequence[Group], number: int) -> list[StepLog]:
        """The optimiser steps of round `number`, which start from the weights that sampled its
        groups.
        """
        explained = None
        if self._reference is not None:
            references = self._token_logps(self._reference, groups)
            groups = [
                replace(group, reference=tuple(sum_by_answer(one, [group])[0].tolist()))
                for group, one in zip(groups, references, strict=True)
            ]
            if self._critic is not None and self._loss.critic is not None:
                groups, explained = self._experienced(
                    self._critic, self._loss.critic, groups, references
                )
        logs: list[StepLog] = []
        for place, some in enumerate(_minibatches(groups, self._rounds, number, self._seed)):
            step = number * self._rounds.steps + place
            rate = self._training.learning_rate_at(step, self._rounds.count * self._rounds.steps)
            with (
                attention_of(self._scorer, self.model),
                checkpointed(self.model, self._training.gradient_checkpointing),
            ):
                log, _ = train_step(
                    self.model,
                    some,
                    self._loss,
                    self._training,
                    self._scorer,
                    self._optimizer,
                    rate,
                    self._seed,
                    step,
                    0,
                    ALONE,
                    False,
                )
            if self._critic is not None and self._loss.critic is not None:
                value_loss = self._critic.step(some, self._loss.critic, rate, step)
                log = replace(log, value_loss=value_loss, explained_variance=explained)
            logs.append(log)
        return logs

    def state(self) -> dict[str, Tensor]:
        """All there is under flat names; views, so save them before the next step."""
        critic = {} if self._critic is None else self._critic.optimizer.state()
        return self._optimizer.state() | {
            f"{_CRITIC}{name}": tensor for name, tensor in critic.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self._optimizer.load(
            {name: tensor for name, tensor in tensors.items() if not name.startswith(_CRITIC)}
        )
        if self._critic is not None:
            self._critic.optimizer.load(
                {
                    name.removeprefix(_CRITIC): tensor
                    for name, tensor in tensors.items()
                    if name.startswith(_CRITIC)
                }
            )

    def _experienced(
        self,
        critic: Critic,
        rule: ActorCritic,
        groups: Sequence[Group],
        references: Sequence[Tensor],
    ) -> tuple[list[Group], float | None]:
        """The groups with their experience, and what share of the returns' variance the value model
        explains.
        """
        logps = self._token_logps(self.model, groups)
        experience = rule.experience(
            [
                Sampled(
                    logps=own,
                    reference=reference,
                    values=critic.values(group),
                    lengths=[len(answer) for answer in group.answers],
                    scores=group.rewards or (),
                )
                for group, own, reference in zip(groups, logps, references, strict=True)
            ]
        )
        explained = explained_variance(
            torch.cat([past.values for past in experience]),
            torch.cat([past.returns for past in experience]),
        )
        return [
            replace(group, experience=past) for group, past in zip(groups, experience, strict=True)
        ], explained

    @torch.no_grad()
    def _token_logps(self, model: PreTrainedModel, groups: Sequence[Group]) -> list[Tensor]:
        """log p of each token of each group's answers, fp32 [tokens]; each group by itself, so that
        its values do not depend on the others.
        """
        scorer = self._scorer if model is self.model else self._reference_scorer
        return [scorer(model, [group]).logps[0] for group in groups]


def _minibatches(
    groups: Sequence[Group], rounds: Rounds, number: int, seed: int
) -> Iterator[list[Group]]:
    """The groups of each optimiser step of a round: all of them, or a permutation for each pass,
    dealt out.
    """
    count = min(rounds.minibatches, len(groups))
    for epoch in range(rounds.epochs):
        order = list(range(len(groups)))
        if count > 1:
            generator(seed, "minibatches", number, epoch).shuffle(order)
        for place in range(count):
            yield [groups[index] for index in order[place::count]]

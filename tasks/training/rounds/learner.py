"""What learns from the groups of a round: the policy, its reference, and where the loss asks for
values also a value model. All in memory.

    learner = Learner(trainer, rounds, reference, critic)
    logs = learner.learn(groups, number)    # a step, or rounds.epochs x rounds.minibatches
Its state are plain tensors, from which it goes on to the bit. Test: pytest
tests/tasks/training/rounds/test_learner.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import Scorer, attention_of, pick_scorer, sum_by_answer
from dapflow.tasks.models.parameters import checkpointed
from dapflow.tasks.seeds import generator
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.needs import ActorCritic, Moments, Sampled
from dapflow.tasks.training.optimizer_step import Moment, Trainer, train_step
from dapflow.tasks.training.rounds.critic import Critic, explained_variance
from dapflow.tasks.training.settings import Rounds

_CRITIC, _SEEN = "critic/", "seen"


class Learner:
    """Trains the trainer's model in place. reference, critic: where its loss needs them."""

    def __init__(
        self,
        trainer: Trainer,
        rounds: Rounds,
        reference: PreTrainedModel | None = None,
        critic: Critic | None = None,
    ) -> None:
        self.model = trainer.model
        self._trainer, self._rounds = trainer, rounds
        self._reference, self._critic = reference, critic
        self._seen = Moments()
        self._reference_scorer = None if reference is None else pick_scorer(reference)

    def learn(self, groups: Sequence[Group], number: int) -> list[StepLog]:
        """The optimiser steps of round `number`, which start from the weights that sampled its
        groups.
        """
        rule, explained = self._trainer.loss.critic, None
        if self._reference is not None and self._reference_scorer is not None:
            references = _token_logps(self._reference, self._reference_scorer, groups)
            groups = [
                replace(group, reference=tuple(sum_by_answer(logps, [group])[0].tolist()))
                for group, logps in zip(groups, references, strict=True)
            ]
            if self._critic is not None and rule is not None:
                groups = self._experienced(self._critic, rule, groups, references)
                explained = _explained(groups)
        logs: list[StepLog] = []
        minibatches = _minibatches(groups, self._rounds, number, self._trainer.seed)
        for place, batch in enumerate(minibatches):
            moment = self._moment(number * self._rounds.steps + place)
            log = self._step(batch, moment)
            if self._critic is not None and rule is not None:
                loss = self._critic.step(batch, rule, moment)
                log = replace(log, value_loss=loss, explained_variance=explained)
            logs.append(log)
        return logs

    def _moment(self, step: int) -> Moment:
        steps = self._rounds.count * self._rounds.steps
        rate = self._trainer.settings.learning_rate_at(step, steps)
        return Moment(step=step, learning_rate=rate)

    def _step(self, batch: Sequence[Group], moment: Moment) -> StepLog:
        with (
            attention_of(self._trainer.scorer, self.model),
            checkpointed(self.model, self._trainer.settings.gradient_checkpointing),
        ):
            return train_step(self._trainer, batch, moment)

    def state(self) -> dict[str, Tensor]:
        """All there is under flat names; views, so save them before the next step."""
        critic = {} if self._critic is None else self._critic.optimizer.state()
        seen = torch.tensor(astuple(self._seen), dtype=torch.float64)
        return (
            self._trainer.optimizer.state()
            | {f"{_CRITIC}{name}": tensor for name, tensor in critic.items()}
            | {_SEEN: seen}
        )

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        count, mean, squares = tensors[_SEEN].tolist()
        self._seen = Moments(count=count, mean=mean, squares=squares)
        critic = {
            name.removeprefix(_CRITIC): tensor
            for name, tensor in tensors.items()
            if name.startswith(_CRITIC)
        }
        self._trainer.optimizer.load(
            {
                name: tensor
                for name, tensor in tensors.items()
                if name != _SEEN and not name.startswith(_CRITIC)
            }
        )
        if self._critic is not None:
            self._critic.optimizer.load(critic)

    def _experienced(
        self,
        critic: Critic,
        rule: ActorCritic,
        groups: Sequence[Group],
        references: Sequence[Tensor],
    ) -> list[Group]:
        """The groups with their experience."""
        self._seen = self._seen.including(
            [score for group in groups for score in group.rewards or ()]
        )
        logps = _token_logps(self.model, self._trainer.scorer, groups)
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
            ],
            self._seen,
        )
        return [
            replace(group, experience=past) for group, past in zip(groups, experience, strict=True)
        ]


def _explained(groups: Sequence[Group]) -> float | None:
    """What share of the returns' variance the value model explains."""
    pasts = [group.experience for group in groups if group.experience is not None]
    return explained_variance(
        torch.cat([past.values for past in pasts]), torch.cat([past.returns for past in pasts])
    )


@torch.no_grad()
def _token_logps(model: PreTrainedModel, scorer: Scorer, groups: Sequence[Group]) -> list[Tensor]:
    """log p of each token of each group's answers, fp32 [tokens]; each group by itself, so that its
    values do not depend on the others.
    """
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

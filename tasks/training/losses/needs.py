"""What a loss may need beside log-probabilities of whole answers, as the trainer sees it: the loss
brings the rule, the trainer the tensors.

Losses name a subclass in `@loss`. The trainer calls it through these classes and imports none, so
that a change in one changes the versions of those trainings alone whose loss names it. Test: pytest
tests/tasks/training/losses
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dapflow.tasks.models.packed.batches import Experience
from dapflow.tasks.training.losses.options import Options


class Alternatives(Options):
    """For losses that set each token of an answer against another that could stand there."""

    @abstractmethod
    def draw(self, logits: Tensor, target: Tensor, random: torch.Generator) -> Tensor:
        """The other token of each place, [tokens]: logits [tokens, vocabulary], target [tokens]."""

    @abstractmethod
    def penalty(self, target: Tensor, alternative: Tensor) -> Tensor:
        """For each token, of the log-probs of the two, [tokens] each."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A group's answers just after they were sampled. logps, reference, values: of each token,
    answer after answer, fp32 [tokens]; lengths, scores: of each answer.
    """

    logps: Tensor
    reference: Tensor
    values: Tensor
    lengths: Sequence[int]
    scores: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """How many scores there have been, their mean, and the sum of their squared distances from it."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def including(self, scores: Sequence[float]) -> Self:
        """With further ones (Chan, Golub and LeVeque, American Statistician 37, 1983)."""
        if not scores:
            return self
        mean = math.fsum(scores) / len(scores)
        squares = math.fsum((score - mean) ** 2 for score in scores)
        count, apart = self.count + len(scores), mean - self.mean
        return replace(
            self,
            count=count,
            mean=self.mean + apart * len(scores) / count,
            squares=self.squares + squares + apart**2 * self.count * len(scores) / count,
        )

    def whitened(self, score: float) -> float:
        """The score in standard deviations from the mean."""
        return (score - self.mean) / math.sqrt(self.squares / self.count + 1e-8)


class ActorCritic(Options):
    """For losses that learn beside a value model."""

    @abstractmethod
    def experience(self, groups: Sequence[Sampled], seen: Moments) -> list[Experience]:
        """What is kept of a round's groups, group by group. seen: the scores of all rounds so far,
        with this one's.
        """

    @abstractmethod
    def value_loss(self, values: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        """Of the value model, for each token, [tokens]; `old` are its values before the round."""

    @abstractmethod
    def ratio_figures(self, logps: Tensor, old: Tensor) -> Tensor:
        """[2], sums over tokens: how many ratios pi / pi_old are beyond the clip, and an estimate
        of KL(pi_old || pi).
        """

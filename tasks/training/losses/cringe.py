"""What the Cringe losses need of an answer's tokens: a likely other token drawn at each place, and
the penalty against it.

Test: pytest tests/tasks/training/losses/test_cringe.py
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dapflow.tasks.training.losses.needs import Alternatives
from dapflow.tasks.training.losses.options import Count


def draw_alternatives(logits: Tensor, target: Tensor, k: int, random: torch.Generator) -> Tensor:
    """A token for each place, drawn by its probability among the k likeliest that are not the
    target (Cringe, arXiv 2211.05826, section 3).

    logits [tokens, vocabulary], target [tokens] -> [tokens].
    """
    values, ids = logits.float().topk(k + 1, dim=1)
    is_target = ids == target[:, None]
    is_target[:, -1] |= ~is_target.any(dim=1)  # exactly k remain
    drawn = (
        values.masked_fill(is_target, -torch.inf).softmax(dim=1).multinomial(1, generator=random)
    )
    return ids.gather(1, drawn)[:, 0]


def cringe_penalty(target: Tensor, alternative: Tensor) -> Tensor:
    """-log(e^s* / (e^s* + e^s)) for each token, of raw logits or of log-probs: only their
    difference counts. [tokens] each.
    """
    return softplus(target - alternative)


class LikelyTokens(Alternatives):
    """The alternatives are among the `k` likeliest tokens."""

    k: Count

    def draw(self, logits: Tensor, target: Tensor, random: torch.Generator) -> Tensor:
        return draw_alternatives(logits, target, self.k, random)

    def penalty(self, target: Tensor, alternative: Tensor) -> Tensor:
        return cringe_penalty(target, alternative)

"""What PPO needs besides log-probabilities: rewards and advantages of tokens, and the two clipped
losses. Pure functions of tensors.

Per-token tensors are fp32 [tokens]; `old` values are those of the policy that sampled, kept fixed.
Proximal policy optimisation, arXiv 1707.06347; as for language models, arXiv 1909.08593 and
2203.02155. Test: pytest tests/tasks/training/losses/test_policy_gradient.py
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dapflow.tasks.models.packed.batches import Experience
from dapflow.tasks.training.losses.needs import ActorCritic, Moments, Sampled
from dapflow.tasks.training.losses.options import NotNegative, Positive, Share


def token_rewards(logps: Tensor, reference: Tensor, score: float, beta: float) -> Tensor:
    """-beta (log pi - log pi_ref) at each token, and the reward model's score at the last (arXiv
    1909.08593, eq. 2).
    """
    rewards = -beta * (logps - reference)
    rewards[-1] += score
    return rewards


def generalised_advantages(
    rewards: Tensor, values: Tensor, gamma: float = 1.0, lambda_: float = 0.95
) -> Tensor:
    """A_t = sum_k (gamma lambda)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t, V = 0 after
    the end (GAE, arXiv 1506.02438, eq. 16).
    """
    following = torch.cat((values[1:], values.new_zeros(1)))
    deltas = rewards + gamma * following - values
    advantages = torch.empty_like(deltas)
    running = deltas.new_zeros(())
    for place in reversed(range(len(deltas))):
        running = deltas[place] + gamma * lambda_ * running
        advantages[place] = running
    return advantages


def whiten(values: Tensor, *, keep_mean: bool = False) -> Tensor:
    """Variance one, and mean zero unless it is to stay."""
    mean = values.mean()
    whitened = (values - mean) * torch.rsqrt(values.var(unbiased=False) + 1e-8)
    return whitened + mean if keep_mean else whitened


def clipped_policy_loss(
    logps: Tensor, old: Tensor, advantages: Tensor, clip: float = 0.2
) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), [tokens] (arXiv 1707.06347, eq. 7)."""
    ratio = (logps - old).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float = 0.2) -> Tensor:
    """max((V - R)^2, (clip(V, old - clip, old + clip) - R)^2) / 2, [tokens]; returns are advantages
    + old values.
    """
    clipped = torch.maximum(torch.minimum(values, old + clip), old - clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def experience_of(
    groups: Sequence[Sampled], *, beta: float, gamma: float, lambda_: float, scale: Moments | None
) -> list[Experience]:
    """A round's experience, group by group: advantages by GAE of penalised rewards, whitened over
    all tokens of the round.

    scale: by which scores are whitened first, so that beta and the value model meet one scale
    whoever judges (Llama 2, arXiv 2307.09288, section 3.2.3); None: they count as they are.
    """
    given = [score for group in groups for score in group.scores]
    scores = iter(given if scale is None else [scale.whitened(score) for score in given])

    def advantages_of(group: Sampled) -> Tensor:
        sizes = list(group.lengths)
        parts = (group.logps.split(sizes), group.reference.split(sizes), group.values.split(sizes))
        answers = [
            generalised_advantages(token_rewards(p, q, next(scores), beta), v, gamma, lambda_)
            for p, q, v in zip(*parts, strict=True)
        ]
        return torch.cat(answers)

    raw = [advantages_of(group) for group in groups]
    sizes = [len(group) for group in raw]
    whitened = whiten(torch.cat(raw)).split(sizes)
    tokens_of_a_group = sum(sizes) / len(sizes)
    return [
        Experience(
            logps=group.logps,
            values=group.values,
            advantages=advantages,
            returns=before + group.values,
            scale=tokens_of_a_group,
        )
        for group, advantages, before in zip(groups, whitened, raw, strict=True)
    ]


def ratio_figures(logps: Tensor, old: Tensor, clip: float) -> Tensor:
    """[2], sums over tokens: how many ratios pi / pi_old are beyond the clip, and ratio - 1 - log
    ratio, which estimates KL(pi_old || pi).
    """
    change = (logps - old).detach()
    ratio = change.exp()
    return torch.stack((((ratio - 1).abs() > clip).float().sum(), (ratio - 1 - change).sum()))


class Clipped(ActorCritic):
    """Generalised advantages of penalised rewards, and clipped losses."""

    beta: NotNegative = 0.02
    clip: Positive = 0.2
    value_clip: Positive = 0.2
    gamma: Share = 1.0
    lambda_: Share = 0.95
    whiten_scores: Literal["running", "round", "none"] = "running"

    def experience(self, groups: Sequence[Sampled], seen: Moments) -> list[Experience]:
        """whiten_scores: by the mean and the deviation of all rounds so far, or of this one alone:
        then a policy whose scores grow alike meets a weaker and weaker beta.
        """
        scales = {
            "running": seen,
            "round": Moments().including([score for group in groups for score in group.scores]),
            "none": None,
        }
        return experience_of(
            groups,
            beta=self.beta,
            gamma=self.gamma,
            lambda_=self.lambda_,
            scale=scales[self.whiten_scores],
        )

    def value_loss(self, values: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        return clipped_value_loss(values, old, returns, self.value_clip)

    def ratio_figures(self, logps: Tensor, old: Tensor) -> Tensor:
        return ratio_figures(logps, old, self.clip)

"""What PPO needs besides log-probabilities: rewards and advantages of tokens, and the two clipped losses. Pure functions of one answer.

Per-token tensors are fp32 [tokens]; `old` values are those of the policy that sampled, kept fixed. Proximal policy optimisation, arXiv
1707.06347; as for language models, arXiv 1909.08593 and 2203.02155. Test: pytest tests/tasks/training/test_policy_gradient.py
"""

import torch
from torch import Tensor


def token_rewards(logps: Tensor, reference: Tensor, score: float, beta: float) -> Tensor:
    """-beta (log pi - log pi_ref) at each token, and the reward model's score at the last (arXiv 1909.08593, eq. 2)."""
    rewards = -beta * (logps - reference)
    rewards[-1] += score
    return rewards


def generalised_advantages(rewards: Tensor, values: Tensor, gamma: float = 1.0, lambda_: float = 0.95) -> Tensor:
    """A_t = sum_k (gamma lambda)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t, V = 0 after the end (GAE, arXiv 1506.02438, eq. 16)."""
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


def clipped_policy_loss(logps: Tensor, old: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), [tokens] (arXiv 1707.06347, eq. 7)."""
    ratio = (logps - old).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float = 0.2) -> Tensor:
    """max((V - R)^2, (clip(V, old - clip, old + clip) - R)^2) / 2, [tokens]; returns are advantages + old values."""
    clipped = torch.maximum(torch.minimum(values, old + clip), old - clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward minus the mean of the other answers' to the same prompt, [groups, answers] (RLOO, arXiv 2402.14740, eq. 8)."""
    others = rewards.shape[1] - 1
    return rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / others

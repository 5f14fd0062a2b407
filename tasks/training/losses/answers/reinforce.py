"""REINFORCE with a leave-one-out baseline.

Test: pytest tests/tasks/training/losses/test_policy_gradient.py
"""

from torch import Tensor

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=True,
    lists=True,
    source="REINFORCE with a leave-one-out baseline, RLOO, arXiv 2402.14740, eq. 8",
)
def reinforce(logps: Logps, *, beta: NotNegative = 0.05) -> Tensor:
    """[groups]. -mean over answers of A log pi(y); A: r - beta (log pi - log pi_ref) minus the mean
    of the other answers' same.
    """
    rewards = logps.ranks - beta * logps.implied_rewards.detach()
    return -(leave_one_out(rewards) * logps.policy).mean(dim=1)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward minus the mean of the other answers' to the same prompt, [groups, answers] (RLOO,
    arXiv 2402.14740, eq. 8).
    """
    others = rewards.shape[1] - 1
    return rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / others

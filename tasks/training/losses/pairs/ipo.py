"""IPO: a squared distance to a margin that is asked for.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from typing import Literal

from torch import Tensor

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Positive
from dapflow.tasks.training.losses.registry import loss


@loss(needs_reference=True, source="IPO, arXiv 2310.12036, eq. 17")
def ipo(logps: Logps, *, tau: Positive = 0.1, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """[groups]. (Delta - 1/(2 tau))^2. The paper sums over tokens; "mean" averages over each
    answer's own (TRL offline).
    """
    rewards = logps.implied_rewards / logps.length if reduction == "mean" else logps.implied_rewards
    return (rewards[:, 0] - rewards[:, 1] - 1 / (2 * tau)) ** 2

"""The pairwise Cringe loss: Cringe behind a gate that closes as the margin grows.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor

from dapflow.tasks.training.losses.cringe import LikelyTokens
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative, Positive
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    alternatives=LikelyTokens(k=5),
    source="Pairwise Cringe, arXiv 2312.16682, eq. 4 to 6",
)
def pairwise_cringe(
    logps: Logps,
    *,
    b: float = -10.0,
    tau: Positive = 10.0,
    alpha: NotNegative = 0.005,
    detach_gate: bool = False,
) -> Tensor:
    """[groups]. sigma((b - M) / tau) [CE(y_w) + alpha CR(y_l)]: the gate closes once M = log
    pi(y_w) - log pi(y_l) is well above b. CE and CR are sums over tokens.
    """
    assert logps.cringe is not None, "registered with alternatives, so the trainer brings it"
    margin = logps.margin.detach() if detach_gate else logps.margin
    return ((b - margin) / tau).sigmoid() * (-logps.policy[:, 0] + alpha * logps.cringe[:, 1])

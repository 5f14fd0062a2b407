"""RRHF: likelihood of the best answer, and a hinge between each two that are ordered wrongly.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import relu

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative
from dapflow.tasks.training.losses.registry import loss


@loss(needs_reference=False, lists=True, source="RRHF, arXiv 2304.05302, eq. 2 to 4")
def rrhf(logps: Logps, *, rank_weight: NotNegative = 1.0) -> Tensor:
    """[groups]. sum over r_i < r_j of max(0, p_i - p_j), plus the NLL of the best answer, where p =
    log pi / length.
    """
    mean = logps.policy / logps.length
    below = logps.ranks[:, :, None] < logps.ranks[:, None, :]  # [groups, i, j]: r_i < r_j
    rank = (relu(mean[:, :, None] - mean[:, None, :]) * below).sum(dim=(1, 2))
    best = logps.ranks.argmax(dim=1, keepdim=True)
    return (
        rank_weight * rank - logps.policy.gather(1, best)[:, 0] / logps.length.gather(1, best)[:, 0]
    )

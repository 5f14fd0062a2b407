"""The hinge of the margin of log-probs themselves, without a reference: what RSO calls SLiC.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import relu

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Positive
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    source="RSO, arXiv 2309.06657, eq. 9 (SLiC without its regulariser; 1/gamma = its delta)",
)
def hinge(logps: Logps, *, gamma: Positive = 0.05) -> Tensor:
    """[groups]. max(0, 1 - gamma (log pi(y_w) - log pi(y_l))): no reference."""
    return relu(1 - gamma * logps.margin)

"""SLiC-HF: the hinge with an absolute margin, and a regulariser.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import relu

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative, Positive
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    source="SLiC-HF, arXiv 2305.10425, eq. 1, with the chosen answer as y_ref",
)
def slic_hf(logps: Logps, *, delta: Positive = 1.0, lambda_: NotNegative = 0.01) -> Tensor:
    """[groups]. max(0, delta - log pi(y_w) + log pi(y_l)) - lambda log pi(y_ref)."""
    return relu(delta - logps.margin) - lambda_ * logps.policy[:, 0]

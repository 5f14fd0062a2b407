"""SPIN: the logistic loss against the previous iterate.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Positive
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=True,
    source="SPIN, arXiv 2401.01335, eq. 4.7: chosen is the data, reference the previous iterate",
)
def spin(logps: Logps, *, lambda_: Positive = 0.1) -> Tensor:
    """[groups]. log(1 + exp(-lambda Delta))."""
    return -logsigmoid(lambda_ * logps.delta)

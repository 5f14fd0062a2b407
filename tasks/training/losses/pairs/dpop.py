"""DPOP: DPO with a penalty on a chosen answer that is less likely than under the reference.

Test: pytest tests/tasks/training/losses/test_displacement.py
"""

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative, Positive
from dapflow.tasks.training.losses.registry import loss


@loss(needs_reference=True, source="DPO-Positive, Smaug, arXiv 2402.13228, eq. 3")
def dpop(logps: Logps, *, beta: Positive = 0.3, lambda_: NotNegative = 50.0) -> Tensor:
    """[groups]. -log sigma(beta (Delta - lambda max(0, -d(y_w)))): the penalty is inside, so it is
    multiplied by beta, and while d(y_w) is at least 0 the loss is DPO's.
    """
    lost = relu(-logps.implied_rewards[:, 0])
    return -logsigmoid(beta * (logps.delta - lambda_ * lost))

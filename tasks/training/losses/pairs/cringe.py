"""The Cringe loss: likelihood of the chosen answer, and the token-level penalty of the rejected.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor

from dapflow.tasks.training.losses.cringe import LikelyTokens
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    alternatives=LikelyTokens(k=1),
    source="Cringe, arXiv 2211.05826, eq. 3, with the rejected answer as the negative",
)
def cringe(logps: Logps, *, alpha: NotNegative = 1.0) -> Tensor:
    """[groups]. [CE(y_w) + alpha CR(y_l)] per token of a group of the batch, so that its mean over
    groups is per token of the batch.
    """
    assert logps.cringe is not None, "registered with alternatives, so the trainer brings it"
    tokens = logps.length[:, :2].sum(dim=1) if logps.batch_length is None else logps.batch_length
    return (-logps.policy[:, 0] + alpha * logps.cringe[:, 1]) / tokens

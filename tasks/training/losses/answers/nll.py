"""The negative log-likelihood of answers: supervised fine-tuning.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    answers=1,
    source="supervised fine-tuning; RAFT, arXiv 2304.06767; ReST, arXiv 2308.08998, eq. 3",
)
def nll(logps: Logps) -> Tensor:
    """[groups]. -log pi(y) / length of the first answer."""
    return -logps.policy[:, 0] / logps.length[:, 0]

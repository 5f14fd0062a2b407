"""Which of two labels is the right one: what a ranker learns.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor

from dapflow.tasks.training.losses.bradley_terry import bradley_terry
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    source="likelihood of the right one of two labels; RSO's ranker, arXiv 2309.06657, section 3.2",
)
def label(logps: Logps) -> Tensor:
    """[groups]. Bradley-Terry of log pi(y_w) and log pi(y_l), y_w the right label, y_l the wrong
    one, as sure as the judge was.
    """
    return bradley_terry(
        logps.policy[:, 0],
        logps.policy[:, 1],
        certain=1.0 if logps.preference is None else logps.preference,
    )

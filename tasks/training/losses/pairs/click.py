"""CLICK: likelihood of the chosen answer, and a hinge of the margin.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import relu

from dapflow.tasks.training.losses.answers.nll import nll
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import NotNegative
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=False,
    source="CLICK, arXiv 2306.03350, eq. 2 and 3, the chosen answer as the language-model data",
)
def click(logps: Logps, *, margin: NotNegative = 20.0, hinge_weight: NotNegative = 0.5) -> Tensor:
    """[groups]. NLL per token of y+, plus hinge_weight max(0, margin + log pi(y-) - log pi(y+))."""
    return nll(logps) + hinge_weight * relu(margin - logps.margin)

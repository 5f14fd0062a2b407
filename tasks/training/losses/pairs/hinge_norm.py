"""The hinge of the log-ratio margin: RSO's hinge-norm.

TRL calls it "hinge", OAIF and oat "SLiC"; in hinge.py and slic_hf.py are what others call so.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import relu

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Positive
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=True,
    source="RSO, arXiv 2309.06657, eq. 10; OAIF, arXiv 2402.04792, calls it SLiC",
)
def hinge_norm(logps: Logps, *, gamma: Positive = 0.05) -> Tensor:
    """[groups]. max(0, 1 - gamma Delta)."""
    return relu(1 - gamma * logps.delta)

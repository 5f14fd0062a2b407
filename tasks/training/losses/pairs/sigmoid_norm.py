"""DPO's logistic loss of the log-ratio margin. RSO calls it sigmoid-norm.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Half, Positive
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=True,
    source="DPO, arXiv 2305.18290, eq. 7; cDPO with label_smoothing; RSO's sigmoid-norm",
)
def sigmoid_norm(
    logps: Logps, *, beta: Positive = 0.1, label_smoothing: Half = 0.0, soft_labels: bool = False
) -> Tensor:
    """[groups]. -(1 - e) log sigma(beta Delta) - e log sigma(-beta Delta); with soft_labels, 1 - e
    is the judge's probability.
    """
    certain = (
        logps.preference if soft_labels and logps.preference is not None else 1 - label_smoothing
    )
    scaled = beta * logps.delta
    return -certain * logsigmoid(scaled) - (1 - certain) * logsigmoid(-scaled)

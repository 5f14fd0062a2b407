"""The Bradley-Terry loss of two scores: of reward models, and of the loss `label`.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, certain: Tensor | float = 1.0
) -> Tensor:
    """[pairs]. -p log sigma(z) - (1 - p) log sigma(-z), z = r_c - r_r - m(rating), of scores
    [pairs]: the reward model's loss (Llama 2, arXiv 2307.09288, eq. 2), with `certain` p < 1 on
    soft labels (RLAIF, arXiv 2309.00267).
    """
    z = chosen - rejected - margin
    return -certain * logsigmoid(z) - (1 - certain) * logsigmoid(-z)

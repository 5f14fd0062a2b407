"""Pairs with numbers that are worked out by hand, and a loss with its gradient compared with them.

d = [1, -0.5] and [-2, -1], so Delta = 1.5 and -1.
"""

from dataclasses import replace

import pytest
import torch

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss

DOUBLE = {"dtype": torch.float64}
PAIRS = Logps(
    policy=torch.tensor([[-20.0, -18.0], [-12.0, -15.0]], **DOUBLE),
    reference=torch.tensor([[-21.0, -17.5], [-10.0, -14.0]], **DOUBLE),
    length=torch.tensor([[10.0, 8.0], [5.0, 9.0]], **DOUBLE),
)
DPO = Loss.of("sigmoid_norm", beta=0.1)


def with_gradient(loss: Loss, logps: Logps = PAIRS) -> tuple[list[float], list[list[float]]]:
    """The loss of each group, and the gradient of their sum by the policy's log-probs."""
    policy = logps.policy.clone().requires_grad_()
    values = loss(replace(logps, policy=policy))
    (gradient,) = torch.autograd.grad(values.sum(), policy)
    return values.tolist(), gradient.tolist()


def assert_worked(
    loss: Loss, values: list[float], gradient: list[list[float]], logps: Logps = PAIRS
) -> None:
    found, slopes = with_gradient(loss, logps)
    assert found == pytest.approx(values, rel=2e-6)
    for row, expected in zip(slopes, gradient, strict=True):
        assert row == pytest.approx(expected, rel=2e-6)


def pair(policy: list[float], reference: list[float], length: list[float]) -> Logps:
    return Logps(
        policy=torch.tensor([policy], **DOUBLE),
        reference=torch.tensor([reference], **DOUBLE),
        length=torch.tensor([length], **DOUBLE),
    )


AT_THE_REFERENCE = pair([-21.0, -17.5], [-21.0, -17.5], [10.0, 8.0])
REJECTED_GONE = pair([-20.0, -1e4], [-21.0, -17.5], [10.0, 8.0])
CHOSEN_GONE = pair([-1e4, -18.0], [-21.0, -17.5], [10.0, 8.0])
SAME = pair([-20.0, -20.0], [-21.0, -21.0], [10.0, 10.0])

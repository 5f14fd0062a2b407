"""DPOP against worked numbers: DPO that turns back where the chosen answer becomes unlikely.

Run: pytest tests/tasks/training/losses/test_displacement.py
"""

from dataclasses import replace

import pytest
import torch

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from tests.tasks.training.losses.worked import (
    AT_THE_REFERENCE,
    CHOSEN_GONE,
    DOUBLE,
    DPO,
    REJECTED_GONE,
    SAME,
    assert_worked,
    pair,
    with_gradient,
)


@pytest.mark.parametrize(
    ("beta", "lambda_", "values", "gradient"),
    [
        # pair 1: -log sigma(0.15); pair 2: -log sigma(0.1 (-1 - 5 * 2)) = -log sigma(-1.1)
        (
            0.1,
            5.0,
            [0.620957, 1.387335],
            [[-0.04625702, 0.04625702], [-0.4501561, 0.07502601]],
        ),
        # pair 2: -log sigma(0.3 (-1 - 50 * 2)) = -log sigma(-30.3)
        (0.3, 50.0, [0.4932489, 30.3], [[-0.1168082, 0.1168082], [-15.3, 0.3]]),
    ],
)
def test_dpop_of_worked_pairs(
    beta: float, lambda_: float, values: list[float], gradient: list[list[float]]
) -> None:
    assert_worked(Loss.of("dpop", beta=beta, lambda_=lambda_), values, gradient)


@pytest.mark.parametrize(
    ("logps", "value", "gradient"),
    [
        (SAME, 0.6931472, [-0.05, 0.05]),
        (AT_THE_REFERENCE, 0.6931472, [-0.05, 0.05]),  # the kink: DPO's own gradient
        (REJECTED_GONE, 0.0, [0.0, 0.0]),
        (CHOSEN_GONE, 5987.35, [-0.6, 0.1]),  # 0.1 * (9978.5 + 5 * 9979)
    ],
    ids=["same", "at the reference", "rejected gone", "chosen gone"],
)
def test_dpop_of_odd_pairs(logps: Logps, value: float, gradient: list[float]) -> None:
    assert_worked(Loss.of("dpop", beta=0.1, lambda_=5.0), [value], [gradient], logps)


def test_dpop_is_dpo_where_the_chosen_answer_lost_nothing_and_where_lambda_is_zero() -> None:
    first = [values[0] for values in with_gradient(Loss.of("dpop", beta=0.1))]
    assert first == [values[0] for values in with_gradient(DPO)]  # d(y_w) = 1
    assert with_gradient(Loss.of("dpop", beta=0.1, lambda_=0.0)) == with_gradient(DPO)


def test_dpop_turns_back_where_dpo_goes_on_to_lower_both_answers() -> None:
    """Both answers lose, the rejected one more: DPO's loss falls, DPOP's rises."""
    before = pair([-20.0, -20.0], [-20.0, -20.0], [10.0, 10.0])
    after = replace(before, policy=torch.tensor([[-21.0, -24.0]], **DOUBLE))
    dpop = Loss.of("dpop")
    assert DPO(after).item() < DPO(before).item()
    assert dpop(after).item() > dpop(before).item()

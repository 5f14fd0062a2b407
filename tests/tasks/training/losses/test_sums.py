"""Weighted sums of losses: DPO with the NLL of the chosen answer against worked numbers, what a sum
needs, and what has no sum.

Run: pytest tests/tasks/training/losses/test_sums.py
"""

from dataclasses import replace

import pytest
import torch

from dapflow.tasks.step.call import plain
from dapflow.tasks.step.code_version import code_version
from dapflow.tasks.training.fit import fit
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from tests.tasks.training.losses.worked import (
    AT_THE_REFERENCE,
    CHOSEN_GONE,
    DOUBLE,
    DPO,
    PAIRS,
    REJECTED_GONE,
    SAME,
    assert_worked,
    with_gradient,
)
from tests.tasks.training.toys import SETTINGS, groups_with_reference, same_bits, toy_model


def dpo_nll(alpha: float) -> Loss:
    return Loss.sum({"name": "sigmoid-norm", "beta": 0.1}, {"name": "nll", "weight": alpha})


@pytest.mark.parametrize(
    ("alpha", "values", "gradient"),
    [
        # 0.620957 + 20 / 10 and 0.744397 + 12 / 5; the gradient of the chosen less 1 / 10 and 1 / 5
        (
            1.0,
            [2.620957, 3.144397],
            [[-0.146257, 0.04625702], [-0.2524979, 0.05249792]],
        ),
        (
            0.5,
            [1.620957, 1.944397],
            [[-0.09625702, 0.04625702], [-0.1524979, 0.05249792]],
        ),
    ],
)
def test_dpo_with_the_likelihood_of_the_chosen_answer(
    alpha: float, values: list[float], gradient: list[list[float]]
) -> None:
    """Iterative RPO (arXiv 2404.19733, eq. 1): alpha weighs the NLL, by the chosen answer's own
    length."""
    assert_worked(dpo_nll(alpha), values, gradient)


@pytest.mark.parametrize(
    ("logps", "value", "gradient"),
    [
        (SAME, 2.693147, [-0.15, 0.05]),
        (AT_THE_REFERENCE, 2.793147, [-0.15, 0.05]),
        (REJECTED_GONE, 2.0, [-0.1, 0.0]),
        (CHOSEN_GONE, 1997.85, [-0.2, 0.1]),
    ],
    ids=["same", "at the reference", "rejected gone", "chosen gone"],
)
def test_it_of_odd_pairs(logps: Logps, value: float, gradient: list[float]) -> None:
    assert_worked(dpo_nll(1.0), [value], [gradient], logps)


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_a_pair_that_dpo_is_done_with_is_still_held_by_the_likelihood(alpha: float) -> None:
    far = replace(PAIRS, policy=torch.tensor([[-20.0, -1e4], [-12.0, -1e4]], **DOUBLE))
    _, gradient = with_gradient(dpo_nll(alpha), far)
    assert gradient == [[-alpha / 10, 0.0], [-alpha / 5, 0.0]]


def test_a_weight_of_zero_is_the_loss_without_it() -> None:
    assert with_gradient(dpo_nll(0.0)) == with_gradient(DPO)


def test_a_sum_is_called_by_its_terms_and_needs_what_any_of_them_needs() -> None:
    loss = Loss.sum("pairwise_cringe", {"name": "sigmoid_norm", "weight": 2}, "nll")
    assert loss.name == "pairwise_cringe + 2 x sigmoid_norm + 1 x nll"
    assert (loss.needs_reference, loss.needs_values, loss.answers, loss.lists) == (
        True,
        False,
        2,
        False,
    )
    assert loss.alternatives == Loss.of("pairwise_cringe").alternatives
    ranked = Loss.sum("ppo", {"name": "nll", "weight": 0.1})
    assert ranked.needs_values and ranked.lists and ranked.critic == Loss.of("ppo").critic


def test_a_sum_of_a_single_loss_is_that_loss() -> None:
    assert Loss.sum("ipo") == Loss.of("ipo")
    assert Loss.sum("ipo").model_dump() == {"name": "ipo", "tau": 0.1, "reduction": "sum"}
    half = Loss.sum({"name": "ipo", "weight": 0.5})
    assert (half.name, Loss.model_validate(half.model_dump())) == ("0.5 x ipo", half)
    assert half(PAIRS).tolist() == pytest.approx((0.5 * Loss.of("ipo")(PAIRS)).tolist())


def test_the_version_of_a_sum_has_the_code_of_each_of_its_losses() -> None:
    folder = "dapflow.tasks.training.losses"
    codes = [code_version(f"{folder}.{file}") for file in ("pairs.sigmoid_norm", "answers.nll")]
    loss = dpo_nll(0.5)
    assert plain(loss) == [*loss.model_dump(), {"code": " ".join(codes)}]
    assert plain(DPO) == {
        "name": "sigmoid_norm",
        "beta": 0.1,
        "label_smoothing": 0.0,
        "soft_labels": False,
        "code": codes[0],
    }
    assert Loss.model_validate_json(loss.model_dump_json()) == loss


def test_a_training_on_a_sum_logs_each_loss_before_its_weight() -> None:
    groups, model, alone = groups_with_reference(), toy_model(), toy_model()
    first = fit(model, groups, dpo_nll(0.5), SETTINGS, seed=0)[0]
    assert set(first.terms) == {"sigmoid_norm", "nll"}
    assert first.loss == pytest.approx(first.terms["sigmoid_norm"] + 0.5 * first.terms["nll"])
    assert first.terms["sigmoid_norm"] == pytest.approx(
        fit(alone, groups, DPO, SETTINGS, seed=0)[0].loss
    )
    assert not same_bits(model, alone)
    assert fit(toy_model(), groups, DPO, SETTINGS, seed=0)[0].terms == {}


def test_the_likelihood_keeps_chosen_answers_where_dpo_alone_loses_them() -> None:
    """What the term is for: after the same steps the chosen answers are likelier."""
    groups = groups_with_reference()
    settings = SETTINGS.model_copy(update={"epochs": 6})
    logs = {
        alpha: fit(toy_model(), groups, dpo_nll(alpha), settings, seed=0)[-1]
        for alpha in (0.0, 1.0)
    }
    assert logs[1.0].logp_chosen > logs[0.0].logp_chosen

"""The losses against worked numbers, and the sign of every one of them."""

import math
from dataclasses import replace

import pytest
import torch

from dapflow.tasks.models.packed.batches import Experience
from dapflow.tasks.training.losses.bradley_terry import bradley_terry
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.registry import losses


def logps(
    policy: list[float],
    reference: list[float] | None = None,
    length: list[float] | None = None,
    rewards: list[float] | None = None,
) -> Logps:
    return Logps(
        policy=torch.tensor([policy]),
        length=torch.tensor([length or [1.0] * len(policy)]),
        reference=torch.tensor([reference]) if reference else None,
        rewards=torch.tensor([rewards]) if rewards else None,
    )


# d_w = -20 + 21 = 1, d_l = -18 + 17.5 = -0.5, Delta = 1.5
GOLDEN = logps([-20.0, -18.0], [-21.0, -17.5], [10.0, 8.0])
GOLDEN_VALUES = [
    (Loss.of("sigmoid_norm", beta=0.1), 0.620957),  # -log sigma(0.15)
    (
        Loss.of("sigmoid_norm", beta=0.1, label_smoothing=0.2),
        0.650957,
    ),  # 0.8 * 0.620957 + 0.2 * (0.620957 + 0.15)
    (Loss.of("dpop", beta=0.1, lambda_=5.0), 0.620957),  # d_w > 0, so the loss of DPO
    (Loss.of("hinge_norm", gamma=0.05), 0.925),  # 1 - 0.075
    (Loss.of("hinge_norm", gamma=0.002), 0.997),  # OAIF's "SLiC"
    (Loss.of("hinge", gamma=0.05), 1.1),  # 1 - 0.05 * (-2)
    (Loss.of("slic_hf", delta=1.0, lambda_=0.0), 3.0),  # 1 + 2
    (Loss.of("slic_hf", delta=1.0, lambda_=0.5), 13.0),  # 3 - 0.5 * (-20)
    (Loss.of("ipo", tau=1.0), 1.0),  # (1.5 - 0.5)^2
    (Loss.of("ipo", tau=0.1), 12.25),  # (1.5 - 5)^2
    (Loss.of("ipo", tau=0.1, reduction="mean"), 23.4014),  # (1/10 + 0.5/8 - 5)^2 = (0.1625 - 5)^2
    (Loss.of("spin", lambda_=0.1), 0.620957),  # the logistic loss of DPO
    (Loss.of("click", margin=20.0, hinge_weight=1.0), 24.0),  # NLL 20 / 10, and 20 - 18 + 20 = 22
    (Loss.of("rrhf"), 2.0),  # p = -2, -2.25: ranked already, so 0, and the NLL of the best, 2
    (Loss.of("nll"), 2.0),
]


@pytest.mark.parametrize(("loss", "expected"), GOLDEN_VALUES, ids=lambda value: str(value)[:60])
def test_worked_examples(loss: Loss, expected: float) -> None:
    torch.testing.assert_close(loss(GOLDEN), torch.tensor([expected]), atol=1e-4, rtol=0)


def test_a_soft_label_weighs_both_directions() -> None:
    soft = Logps(
        policy=GOLDEN.policy,
        reference=GOLDEN.reference,
        length=GOLDEN.length,
        preference=torch.tensor([0.8]),
    )
    assert Loss.of("sigmoid_norm", soft_labels=True)(soft).item() == pytest.approx(
        0.650957, abs=1e-5
    )  # as label_smoothing=0.2
    assert Loss.of("sigmoid_norm")(soft).item() == pytest.approx(0.620957, abs=1e-5)
    assert Loss.of("sigmoid_norm", soft_labels=True, label_smoothing=0.2)(
        GOLDEN
    ).item() == pytest.approx(0.650957, abs=1e-5)


def test_bradley_terry_with_and_without_a_margin() -> None:
    chosen, rejected = (
        torch.tensor([1.2, 1.2]),
        torch.tensor([0.5, 0.5]),
    )  # difference 0.7, so -log sigma(0.7) and -log sigma(-0.3)
    torch.testing.assert_close(
        bradley_terry(chosen, rejected, torch.tensor([0.0, 1.0])),
        torch.tensor([0.403186, 0.854355]),
    )


def test_bradley_terry_is_as_sure_as_the_label() -> None:
    chosen, rejected = (
        torch.tensor([1.2, 1.2, 1.2]),
        torch.tensor([0.5, 0.5, 0.5]),
    )  # -log sigma(0.7) = 0.403186, -log sigma(-0.7) = 1.103186
    expected = torch.tensor([0.403186, 0.75 * 0.403186 + 0.25 * 1.103186, 1.103186])
    torch.testing.assert_close(
        bradley_terry(chosen, rejected, certain=torch.tensor([1.0, 0.75, 0.0])), expected
    )


def test_a_label_counts_as_much_as_it_is_sure() -> None:
    group = logps([-2.0, -1.0], [0.0, 0.0], [1.0, 1.0])
    assert Loss.of("label")(group).item() == pytest.approx(1.313262, abs=1e-6)  # -log sigma(-1)
    assert Loss.of("label")(replace(group, preference=torch.tensor([0.5]))).item() == pytest.approx(
        0.813262, abs=1e-6
    )


def test_the_policy_that_equals_its_reference_has_a_known_loss() -> None:
    same = logps([-20.0, -18.0], [-20.0, -18.0], [10.0, 8.0])
    for loss, expected in [
        (Loss.of("sigmoid_norm", beta=0.3), math.log(2)),
        (Loss.of("sigmoid_norm", beta=0.3, label_smoothing=0.2), math.log(2)),
        (Loss.of("spin"), math.log(2)),
        (Loss.of("hinge_norm"), 1.0),
        (Loss.of("ipo", tau=0.2), 1 / (4 * 0.2**2)),
        (Loss.of("ipo", tau=0.2, reduction="mean"), 1 / (4 * 0.2**2)),
    ]:
        torch.testing.assert_close(loss(same), torch.tensor([expected]))


@pytest.mark.parametrize("name", list(losses()))
def test_one_small_step_on_a_violated_pair_raises_its_margin(name: str) -> None:
    # lengths are equal, so that the sum and the mean agree on what is violated
    policy = torch.tensor([[-20.0, -18.0]], requires_grad=True)
    cringe = -0.1 * policy  # as a token-level penalty of what is likely
    advantages = torch.tensor([1.0, -1.0])  # of two answers of one token each
    past = Experience(
        logps=policy[0].detach(),
        values=torch.zeros(2),
        advantages=advantages,
        returns=advantages,
        scale=2.0,
    )
    batch = Logps(
        policy=policy,
        reference=torch.tensor([[-19.0, -19.0]]),
        length=torch.full((1, 2), 10.0),
        cringe=cringe,
        tokens=policy[0],
        experience=past,
    )
    (gradient,) = torch.autograd.grad(Loss.of(name)(batch).sum(), policy)
    step = -0.01 * gradient[0]
    assert (step[0] - step[1]).item() > 0


def test_ipo_in_sums_grows_with_length_and_in_means_does_not() -> None:
    # the same answers twice in a row: every sum doubles, every mean stays
    once, twice = GOLDEN, logps([-40.0, -36.0], [-42.0, -35.0], [20.0, 16.0])
    assert Loss.of("ipo", tau=0.1)(twice).item() == pytest.approx((3.0 - 5) ** 2)
    torch.testing.assert_close(
        Loss.of("ipo", reduction="mean")(once), Loss.of("ipo", reduction="mean")(twice)
    )


def test_a_hinge_without_violation_has_no_gradient() -> None:
    policy = torch.tensor([[-1.0, -50.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        Loss.of("hinge", gamma=0.05)(Logps(policy=policy, length=torch.ones(1, 2))).sum(), policy
    )
    assert gradient.tolist() == [[0.0, 0.0]]  # 1 - 0.05 * 49 < 0


def test_rrhf_counts_each_wrongly_ordered_pair_and_no_tie() -> None:
    # p = -1, -3, -2 and r = 1, 1, 2: the best is the third (NLL 2); below it lie p_0 - p_2 = 1 and
    # p_1 - p_2 < 0; r_0 = r_1 says nothing
    assert Loss.of("rrhf")(
        logps([-1.0, -3.0, -2.0], rewards=[1.0, 1.0, 2.0])
    ).item() == pytest.approx(1.0 + 2.0)


def test_rrhf_in_a_batch_equals_rrhf_one_by_one() -> None:
    rows = [([-1.0, -3.0, -2.0], [1.0, 3.0, 2.0]), ([-5.0, -1.0, -2.0], [3.0, 2.0, 1.0])]
    together = Logps(
        policy=torch.tensor([p for p, _ in rows]),
        length=torch.ones(2, 3),
        rewards=torch.tensor([r for _, r in rows]),
    )
    alone = torch.cat([Loss.of("rrhf")(logps(p, rewards=r)) for p, r in rows])
    torch.testing.assert_close(Loss.of("rrhf")(together), alone)


def test_the_cringe_gate_closes_as_the_chosen_answer_becomes_likelier() -> None:
    def gate(chosen: float) -> float:
        # with alpha = 0 the loss is gate * -logp_w
        batch = Logps(
            policy=torch.tensor([[chosen, -20.0]]),
            length=torch.ones(1, 2),
            cringe=torch.zeros(1, 2),
        )
        return Loss.of("pairwise_cringe", alpha=0.0)(batch).item() / -chosen

    assert gate(-60.0) > gate(-30.0) > gate(-10.0)
    assert gate(-30.0) == pytest.approx(0.5)  # M = -10 = b


def test_a_detached_gate_passes_no_gradient() -> None:
    policy = torch.tensor([[-20.0, -18.0]], requires_grad=True)
    batch = Logps(policy=policy, length=torch.ones(1, 2), cringe=torch.zeros(1, 2))
    (gradient,) = torch.autograd.grad(
        Loss.of("pairwise_cringe", detach_gate=True)(batch).sum(), policy
    )
    assert gradient[0, 1].item() == 0.0


def test_two_spellings_of_one_loss_are_equal() -> None:
    assert Loss.of("ipo", tau=1) == Loss.model_validate(
        {"name": "ipo", "options": {"reduction": "sum", "tau": 1.0}}
    )
    assert hash(Loss.of("ipo")) == hash(Loss.of("ipo", tau=0.1))
    assert Loss.model_validate_json(Loss.of("ipo", tau=1).model_dump_json()) == Loss.of(
        "ipo", tau=1
    )
    assert Loss.of("ipo", tau=1) != Loss.of("ipo", tau=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "dpo",
            {},
            "there is no loss 'dpo'; choose one of click, cringe, dpop, hinge, hinge_norm,",
        ),
        ("ipo", {"beta": 1.0}, "the loss ipo has no option 'beta'; its options are tau, reduction"),
        ("nll", {"beta": 1.0}, "the loss nll has no option 'beta'; it has no options"),
        ("ipo", {"tau": 0.0}, "tau=0.0 of the loss ipo: input should be greater than 0"),
        (
            "ipo",
            {"reduction": "max"},
            "reduction='max' of the loss ipo: input should be 'sum' or 'mean'",
        ),
    ],
)
def test_a_wrong_loss_is_told_what_is_right(
    name: str, options: dict[str, float | str], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Loss.of(name, **options)


def test_every_loss_names_its_source() -> None:
    assert all(registered.source for registered in losses().values())

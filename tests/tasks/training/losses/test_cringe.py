"""The token-level Cringe penalty and the tokens it draws."""

import pytest
import torch

from dapflow.tasks.models.packed.logps import packed_token_logps, padded_token_logps
from dapflow.tasks.training.losses.cringe import cringe_penalty, draw_alternatives
from tests.tasks.training.toys import toy_groups, toy_model


def test_the_worked_example() -> None:
    # s* = 3, s = 2: -log(e^3 / (e^3 + e^2)) = log(1 + e^-1)
    assert cringe_penalty(torch.tensor(2.0), torch.tensor(3.0)).item() == pytest.approx(
        0.313262, abs=1e-6
    )


def test_log_probs_do_as_well_as_logits() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0])
    logps = logits.log_softmax(0)
    torch.testing.assert_close(
        cringe_penalty(logits[1], logits[2]), cringe_penalty(logps[1], logps[2])
    )


@pytest.mark.parametrize(("target", "allowed"), [(4, {2, 3}), (3, {2, 4}), (0, {3, 4})])
def test_alternatives_are_drawn_from_the_k_likeliest_but_never_the_target(
    target: int, allowed: set[int]
) -> None:
    logits = torch.arange(5.0).expand(400, 5)  # token 4 is the likeliest, then 3, 2, ...
    drawn = draw_alternatives(
        logits, torch.full((400,), target), k=2, random=torch.Generator().manual_seed(0)
    )
    assert set(drawn.tolist()) == allowed
    assert (drawn == max(allowed)).float().mean().item() == pytest.approx(
        {1: 0.731, 2: 0.881}[max(allowed) - min(allowed)], abs=0.06
    )


def test_one_small_step_makes_the_target_less_likely_than_the_alternative() -> None:
    logits = torch.tensor([2.0, 1.0], requires_grad=True)  # target, alternative
    (gradient,) = torch.autograd.grad(cringe_penalty(logits[0], logits[1]), logits)
    assert gradient[0] > 0 > gradient[1]  # the gradient flows into s* too


def test_packed_and_padded_score_the_same_drawn_tokens() -> None:
    model, groups = toy_model().eval(), toy_groups(3)

    def likeliest(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return draw_alternatives(logits, target, k=1, random=torch.Generator())

    packed, padded = (
        packed_token_logps(model, groups, likeliest),
        padded_token_logps(model, groups, likeliest),
    )
    assert packed.logps.shape == (
        2,
        sum(len(answer) for group in groups for answer in group.answers),
    )
    torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)

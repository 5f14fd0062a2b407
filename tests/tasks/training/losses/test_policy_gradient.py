"""The parts of PPO and REINFORCE against worked numbers, and the sign of what they push."""

from statistics import fmean, pvariance

import pytest
import torch
from torch.testing import assert_close

from dapflow.tasks.models.packed.batches import Experience
from dapflow.tasks.training.losses.answers.reinforce import leave_one_out
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.needs import Moments, Sampled
from dapflow.tasks.training.losses.policy_gradient import (
    Clipped,
    clipped_policy_loss,
    clipped_value_loss,
    experience_of,
    generalised_advantages,
    ratio_figures,
    token_rewards,
    whiten,
)
from dapflow.tasks.training.rounds.critic import explained_variance


def test_the_kl_penalty_is_at_every_token_and_the_score_at_the_last() -> None:
    found = token_rewards(
        torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.5, -2.0, -2.0]), score=2.0, beta=0.1
    )
    assert_close(found, torch.tensor([-0.05, 0.0, 2.1]))


def test_advantages_by_hand() -> None:
    # delta = [0.4 - 0.5, 0.2 - 0.4, 1 - 0.2]; A_2 = 0.8, A_1 = -0.2 + 0.95 * 0.8, A_0 = -0.1 + 0.95
    # * 0.56
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.4, 0.2])
    assert_close(generalised_advantages(rewards, values), torch.tensor([0.432, 0.56, 0.8]))
    assert_close(
        generalised_advantages(rewards, values, lambda_=1.0), 1.0 - values
    )  # the return of the whole, minus the value
    assert_close(
        generalised_advantages(rewards, values, gamma=0.5, lambda_=0.0),
        torch.tensor([-0.3, -0.3, 0.8]),
    )


def test_whitened_values_have_variance_one() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert_close(whiten(values), torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5)
    assert_close(whiten(values, keep_mean=True).mean(), torch.tensor(2.5))


def test_the_ratio_is_clipped_only_where_that_helps_the_policy() -> None:
    old, advantages = torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0])
    logps = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    losses = clipped_policy_loss(logps, old, advantages)
    assert_close(losses, torch.tensor([-1.2, -0.5, 1.5, 0.8]))
    losses.sum().backward()
    assert logps.grad is not None
    assert_close(
        logps.grad, torch.tensor([0.0, -0.5, 1.5, 0.0])
    )  # beyond the clip nothing pushes further
    assert_close(
        clipped_policy_loss(old, old, advantages), -advantages
    )  # at the policy that sampled


def test_the_value_is_clipped_around_the_old_one() -> None:
    found = clipped_value_loss(torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0]))
    assert_close(found, torch.tensor([0.5 * 0.8**2, 0.5 * 0.9**2]))


def test_reinforce_compares_each_answer_with_the_others() -> None:
    assert_close(leave_one_out(torch.tensor([[3.0, 0.0, 0.0]])), torch.tensor([[3.0, -1.5, -1.5]]))
    policy = torch.tensor([[-5.0, -6.0, -7.0]], requires_grad=True)
    # R = r - 0.1 (log pi - log pi_ref) = 3, 0, 0.2; A = 2.9, -1.6, -1.3
    batch = Logps(
        policy=policy,
        reference=torch.tensor([[-5.0, -6.0, -5.0]]),
        rewards=torch.tensor([[3.0, 0.0, 0.0]]),
        length=torch.ones(1, 3),
    )
    loss = Loss.of("reinforce", beta=0.1)(batch)
    assert_close(loss, torch.tensor([-(2.9 * -5 - 1.6 * -6 - 1.3 * -7) / 3]))
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert_close(
        gradient, -torch.tensor([[2.9, -1.6, -1.3]]) / 3
    )  # no gradient flows through the penalty
    same = Logps(
        policy=policy, reference=policy.detach(), rewards=torch.ones(1, 3), length=torch.ones(1, 3)
    )
    assert Loss.of("reinforce")(same).item() == 0.0  # equal rewards say nothing


OPTIONS = {"beta": 0.1, "gamma": 1.0, "lambda_": 1.0}


def group(
    logps: torch.Tensor,
    reference: torch.Tensor,
    values: torch.Tensor,
    lengths: list[int],
    scores: list[float],
) -> Sampled:
    return Sampled(logps=logps, reference=reference, values=values, lengths=lengths, scores=scores)


def test_the_experience_of_a_round_by_hand() -> None:
    # two prompts, answers of 2 and 1 tokens, and of 1; scores 3, 1 and 2 are whitened to 1, -1 and
    # 0 times sqrt(3/2)
    unit = 1.5**0.5
    logps = [torch.tensor([-1.0, -2.0, -1.0]), torch.tensor([-3.0])]
    reference = [
        torch.tensor([-2.0, -2.0, -1.0]),
        torch.tensor([-3.0]),
    ]  # only the very first token costs: 0.1 x 1
    values = [torch.tensor([0.5, 0.0, 0.0]), torch.tensor([0.0])]
    sampled = zip(logps, reference, values, [[2, 1], [1]], [[3.0, 1.0], [2.0]], strict=True)
    scale = Moments().including([3.0, 1.0, 2.0])
    first, second = experience_of([group(*parts) for parts in sampled], scale=scale, **OPTIONS)
    # lambda = gamma = 1: the return of what follows, minus the value
    advantages = torch.tensor([unit - 0.1 - 0.5, unit, -unit, 0.0])
    assert_close(first.returns, torch.tensor([unit - 0.1, unit, -unit]))
    assert_close(second.returns, torch.tensor([0.0]))
    assert_close(torch.cat((first.advantages, second.advantages)), whiten(advantages))
    assert (first.scale, second.scale) == (2.0, 2.0)  # 4 tokens in 2 groups
    assert first.logps is logps[0] and first.values is values[0]


def test_scores_count_as_they_are_where_they_are_not_whitened() -> None:
    zero = torch.zeros(1)
    [past] = experience_of([group(zero, zero, zero, [1], [7.0])], scale=None, **OPTIONS)
    assert_close(past.returns, torch.tensor([7.0]))


def test_the_moments_of_rounds_are_those_of_all_their_scores() -> None:
    rounds = [[3.0, 1.0], [], [2.0, 2.5, -4.0], [1e3]]
    seen = Moments()
    for scores in rounds:
        seen = seen.including(scores)
    together = [score for scores in rounds for score in scores]
    assert (seen.count, seen.mean) == (len(together), pytest.approx(fmean(together)))
    assert seen.squares == pytest.approx(pvariance(together) * len(together))
    whitened = [seen.whitened(score) for score in together]
    assert_close(torch.tensor(whitened), whiten(torch.tensor(together)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("mode", "worth"),
    # two scores, always 1 / 2^round apart, on a mean that rises by 1 a round: 2 / sd / 2^round
    [("round", [2.0, 2.0, 2.0, 2.0]), ("none", [1.0, 0.5, 0.25, 0.125])],
)
def test_scores_that_grow_alike_are_worth_as_much_where_each_round_has_its_own_scale(
    mode: str, worth: list[float]
) -> None:
    assert differences_learned(mode) == pytest.approx(worth, abs=1e-5)


def test_beta_does_not_weaken_as_the_policy_improves() -> None:
    # against one beta, a nat of KL is worth as much reward in each round as in the first, or less
    worth = [
        learned / apart
        for learned, apart in zip(
            differences_learned("running"), (1, 0.5, 0.25, 0.125), strict=True
        )
    ]
    assert worth[0] == pytest.approx(2.0, abs=1e-5)  # of the first round there is no other scale
    assert all(later < worth[0] for later in worth[1:])
    by_round = [
        learned / apart
        for learned, apart in zip(differences_learned("round"), (1, 0.5, 0.25, 0.125), strict=True)
    ]
    assert by_round[-1] == pytest.approx(8 * by_round[0], rel=1e-4)  # what it guards against


def differences_learned(mode: str) -> list[float]:
    """By how much the returns of two answers differ in each of four rounds, in which the policy's
    scores rise and grow alike.
    """
    rule, seen, zero = Clipped.model_validate({"whiten_scores": mode}), Moments(), torch.zeros(1)
    found = list[float]()
    for number in range(4):
        low = float(number)
        scores = [low, low + 0.5**number]
        seen = seen.including(scores)
        groups = [group(zero, zero, zero, [1], [score]) for score in scores]
        first, second = rule.experience(groups, seen)
        found.append(float(second.returns - first.returns))
    return found


def test_a_value_model_explains_all_or_nothing_or_cannot_be_told() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 9.0), returns) == 0.0
    assert explained_variance(torch.tensor([1.0, 2.0, 2.0]), returns) == pytest.approx(
        1 - (2 / 9) / (2 / 3)
    )
    assert explained_variance(returns, torch.ones(3)) is None


def test_the_figures_of_the_ratio_by_hand() -> None:
    ratios = torch.tensor([1.0, 1.5, 0.5, 1.1])
    clipped, approx_kl = ratio_figures(ratios.log(), torch.zeros(4), clip=0.2).tolist()
    assert clipped == 2
    assert approx_kl == pytest.approx(float((ratios - 1 - ratios.log()).sum()), rel=1e-5)


def test_the_loss_of_ppo_by_hand_and_what_it_pushes() -> None:
    tokens = torch.tensor([1.5, 0.5, 1.0]).log().requires_grad_()
    past = Experience(
        logps=torch.zeros(3),
        values=torch.zeros(3),
        advantages=torch.tensor([1.0, 1.0, -2.0]),
        returns=torch.zeros(3),
        scale=2.0,
    )
    batch = Logps(
        policy=tokens.sum()[None, None],
        length=torch.tensor([[3.0]]),
        reference=torch.zeros(1, 1),
        tokens=tokens,
        experience=past,
    )
    loss = Loss.of("ppo")(batch)
    assert_close(loss, torch.tensor([(-1.2 - 0.5 + 2.0) / 2]))
    (gradient,) = torch.autograd.grad(loss.sum(), tokens)
    assert_close(
        gradient, torch.tensor([0.0, -0.25, 1.0])
    )  # up where it was better than expected and not yet clipped, down where worse


def test_with_one_step_a_round_ppo_is_reinforce_with_a_value_baseline() -> None:
    tokens = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantages = torch.tensor([0.7, -1.3])
    past = Experience(
        logps=tokens.detach(),
        values=torch.zeros(2),
        advantages=advantages,
        returns=torch.zeros(2),
        scale=1.0,
    )
    batch = Logps(
        policy=tokens.sum()[None, None],
        length=torch.tensor([[2.0]]),
        reference=torch.zeros(1, 1),
        tokens=tokens,
        experience=past,
    )
    (gradient,) = torch.autograd.grad(Loss.of("ppo")(batch).sum(), tokens)
    assert_close(gradient, -advantages)  # of -A log pi

"""The parts of PPO and REINFORCE against worked numbers, and the sign of what they push."""

import torch
from torch.testing import assert_close

from tasks.training.losses import Logps, Loss
from tasks.training.policy_gradient import (
    clipped_policy_loss,
    clipped_value_loss,
    generalised_advantages,
    leave_one_out,
    token_rewards,
    whiten,
)


def test_the_kl_penalty_is_at_every_token_and_the_score_at_the_last() -> None:
    found = token_rewards(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.5, -2.0, -2.0]), score=2.0, beta=0.1)
    assert_close(found, torch.tensor([-0.05, 0.0, 2.1]))


def test_advantages_by_hand() -> None:
    # delta = [0.4 - 0.5, 0.2 - 0.4, 1 - 0.2]; A_2 = 0.8, A_1 = -0.2 + 0.95 * 0.8, A_0 = -0.1 + 0.95 * 0.56
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.4, 0.2])
    assert_close(generalised_advantages(rewards, values), torch.tensor([0.432, 0.56, 0.8]))
    assert_close(generalised_advantages(rewards, values, lambda_=1.0), 1.0 - values)  # the return of the whole, minus the value
    assert_close(generalised_advantages(rewards, values, gamma=0.5, lambda_=0.0), torch.tensor([-0.3, -0.3, 0.8]))


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
    assert_close(logps.grad, torch.tensor([0.0, -0.5, 1.5, 0.0]))  # beyond the clip nothing pushes further
    assert_close(clipped_policy_loss(old, old, advantages), -advantages)  # at the policy that sampled


def test_the_value_is_clipped_around_the_old_one() -> None:
    found = clipped_value_loss(torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0]))
    assert_close(found, torch.tensor([0.5 * 0.8**2, 0.5 * 0.9**2]))


def test_reinforce_compares_each_answer_with_the_others() -> None:
    assert_close(leave_one_out(torch.tensor([[3.0, 0.0, 0.0]])), torch.tensor([[3.0, -1.5, -1.5]]))
    policy = torch.tensor([[-5.0, -6.0, -7.0]], requires_grad=True)
    # R = r - 0.1 (log pi - log pi_ref) = 3, 0, 0.2; A = 2.9, -1.6, -1.3
    batch = Logps(
        policy=policy, reference=torch.tensor([[-5.0, -6.0, -5.0]]), rewards=torch.tensor([[3.0, 0.0, 0.0]]), length=torch.ones(1, 3)
    )
    loss = Loss.of("reinforce", beta=0.1)(batch)
    assert_close(loss, torch.tensor([-(2.9 * -5 - 1.6 * -6 - 1.3 * -7) / 3]))
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert_close(gradient, -torch.tensor([[2.9, -1.6, -1.3]]) / 3)  # no gradient flows through the penalty
    same = Logps(policy=policy, reference=policy.detach(), rewards=torch.ones(1, 3), length=torch.ones(1, 3))
    assert Loss.of("reinforce")(same).item() == 0.0  # equal rewards say nothing

"""Where training ends: the policies and scores that theory names as the optimum of each loss."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.needs import Moments, Sampled
from dapflow.tasks.training.reward.pointwise import fit_head
from tests.theory.tables import divergence, met, minimum, normal, tilted

ANSWERS, BETA = 6, 0.5
REFERENCE = normal(0, ANSWERS).log_softmax(0)
REWARDS = normal(1, ANSWERS)
OPTIMUM = tilted(REFERENCE, REWARDS, BETA)
CHOSEN, REJECTED = torch.tensor(
    [(i, j) for i in range(ANSWERS) for j in range(ANSWERS) if i != j]
).T
PREFERENCE = (REWARDS[CHOSEN] - REWARDS[REJECTED]).sigmoid()


def after_dpo(start: Tensor, reference: Tensor) -> Tensor:
    """The policy that DPO on all ordered pairs with soft labels ends at."""
    dpo = Loss.of("sigmoid_norm", beta=BETA, soft_labels=True)

    def objective(logits: Tensor) -> Tensor:
        return dpo(met(logits.log_softmax(0), reference, CHOSEN, REJECTED, PREFERENCE)).mean()

    return minimum(objective, start).log_softmax(0)


def test_dpo_on_soft_labels_ends_at_the_optimum_of_the_penalised_reward() -> None:
    """argmin of DPO's loss is pi_ref exp(r / beta) / Z (DPO, arXiv 2305.18290, eq. 4 and 7)."""
    assert divergence(REFERENCE, OPTIMUM) > 0.1
    assert_close(after_dpo(REFERENCE, REFERENCE), OPTIMUM, rtol=0, atol=1e-6)


def test_dpo_on_hard_labels_in_their_proportions_ends_there_too() -> None:
    """Labels drawn by Bradley-Terry are soft labels in expectation (DPO, arXiv 2305.18290, eq. 1
    and 7).
    """
    dpo = Loss.of("sigmoid_norm", beta=BETA)

    def objective(logits: Tensor) -> Tensor:
        losses = dpo(met(logits.log_softmax(0), REFERENCE, CHOSEN, REJECTED))
        return (PREFERENCE * losses).mean()

    ended = minimum(objective, REFERENCE).log_softmax(0)
    assert_close(ended, OPTIMUM, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tau", [0.1, 0.4, 2.0])
def test_ipo_ends_at_a_margin_in_proportion_to_the_certainty(tau: float) -> None:
    """p (Delta - 1/(2 tau))^2 + (1 - p) (Delta + 1/(2 tau))^2 is least at (2p - 1)/(2 tau), for
    labels of 3 to 1 at 1/(4 tau) (IPO, arXiv 2310.12036, eq. 17).
    """
    chosen, rejected = torch.tensor([[2, 2, 2, 3], [3, 3, 3, 2]])
    ipo = Loss.of("ipo", tau=tau)

    def objective(logits: Tensor) -> Tensor:
        return ipo(met(logits.log_softmax(0), REFERENCE, chosen, rejected)).mean()

    ratios = minimum(objective, REFERENCE).log_softmax(0) - REFERENCE
    assert_close(ratios[2] - ratios[3], torch.tensor(1 / (4 * tau)).double(), rtol=1e-6, atol=1e-8)


def test_a_second_iteration_on_the_same_pairs_changes_nothing_against_the_initial_reference() -> (
    None
):
    """pi_ref exp(r / beta) / Z does not depend on where training starts (DPO, arXiv 2305.18290,
    eq. 4): with reference=initial the first iteration is a fixed point.
    """
    first = after_dpo(REFERENCE, REFERENCE)
    assert_close(after_dpo(first, REFERENCE), first, rtol=0, atol=1e-7)
    far = normal(2, ANSWERS).log_softmax(0)
    assert_close(after_dpo(far, REFERENCE), first, rtol=0, atol=1e-6)


def test_each_iteration_on_the_same_pairs_adds_the_log_ratio_against_the_previous_one() -> None:
    """pi_t = pi_{t-1} exp(r / beta) / Z (DPO, arXiv 2305.18290, eq. 4, with reference=previous):
    pi_ref exp(t r / beta) / Z, as if beta were beta / t.
    """
    policy = REFERENCE
    for iteration in (1, 2, 3):
        policy = after_dpo(policy, policy)
        assert_close(policy, tilted(REFERENCE, REWARDS, BETA / iteration), rtol=0, atol=1e-5)


def test_penalised_ppo_in_a_bandit_ends_at_the_optimum_and_its_value_at_the_log_of_z() -> None:
    """max E r - beta KL is pi_ref exp(r / beta) / Z, and beta log Z is its value, where scores are
    not whitened (arXiv 1909.08593, eq. 2, by PPO, arXiv 1707.06347, eq. 7; DPO, arXiv 2305.18290,
    eq. 4).
    """
    ppo = Loss.of("ppo", beta=BETA, lambda_=1.0, whiten_scores="none")
    assert ppo.critic is not None
    logits, value = REFERENCE.clone().requires_grad_(), torch.zeros(1).double().requires_grad_()
    rounds, passes = 150, 2  # the second pass has ratios and clips
    optimizer = torch.optim.Adam([logits, value], lr=0.1, betas=(0.5, 0.9))
    for number in range(rounds):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - number / rounds)
        policy = logits.log_softmax(0).detach()
        experience = ppo.critic.experience(
            [
                Sampled(
                    logps=policy[answer, None],
                    reference=REFERENCE[answer, None],
                    values=value.detach(),
                    lengths=[1],
                    scores=[REWARDS[answer].item()],
                )
                for answer in range(ANSWERS)
            ],
            Moments(),
        )
        for _ in range(passes):
            logps, losses = logits.log_softmax(0), list[Tensor]()
            for answer, past in enumerate(experience):
                token = logps[answer, None]
                seen = Logps(
                    policy=token[None],
                    length=torch.ones(1, 1),
                    reference=REFERENCE[answer].view(1, 1),
                    tokens=token,
                    experience=past,
                )
                losses.append(ppo(seen) + ppo.critic.value_loss(value, past.values, past.returns))
            optimizer.zero_grad()
            (policy.exp() * torch.cat(losses)).sum().backward()
            optimizer.step()
    assert divergence(logits.detach().log_softmax(0), OPTIMUM) < 1e-5
    log_z = (REFERENCE + REWARDS / BETA).logsumexp(0)
    assert_close(value.detach(), BETA * log_z[None], rtol=0, atol=1e-2)


def test_a_head_on_soft_labels_recovers_planted_log_odds() -> None:
    """argmin of the Bradley-Terry loss on probabilities p has log-odds log p / (1 - p), scale and
    all (RLAIF, arXiv 2309.00267, section 2.2.1; Llama 2, arXiv 2307.09288, eq. 2).
    """
    planted = torch.tensor([2.0, -1.0, 0.5, 0.0]).double()
    features, fresh = normal(3, 400, 2, 4), normal(4, 100, 4)
    log_odds = (features[:, 0] - features[:, 1]) @ planted
    weight = fit_head(features, torch.zeros(400).double(), log_odds.sigmoid()).head.weight
    assert_close(weight, planted, rtol=0, atol=1e-3)
    assert_close(fresh @ weight, fresh @ planted, rtol=0, atol=1e-2)

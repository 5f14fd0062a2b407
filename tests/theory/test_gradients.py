"""Which way the first step goes: expected gradients of losses, summed over all answers, against the
gradients of what they are to climb.

Answers are two tokens of four, so 16; a policy is a table of logits: of the first token, and of the
second after each first.
"""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.needs import Moments, Sampled
from tests.theory.tables import met, normal, penalised

TOKENS, BETA = 4, 0.3
ANSWERS = TOKENS**2
LOGITS = normal(0, 1 + TOKENS, TOKENS)
REWARDS = normal(1, ANSWERS)
WINS = (REWARDS[:, None] - REWARDS).sigmoid()
"""Of each answer against each other: a judge's probability, [answers, answers]."""


def token_logps(logits: Tensor) -> Tensor:
    """[1 + tokens, tokens] -> log-probs of both tokens of each answer, [answers, 2]."""
    first, second = logits[0].log_softmax(0), logits[1:].log_softmax(1)
    return torch.stack((first.repeat_interleave(TOKENS), second.flatten()), dim=1)


REFERENCE = token_logps(normal(2, 1 + TOKENS, TOKENS))


def policy_and_logits() -> tuple[Tensor, Tensor]:
    """Log-probs of the answers, [answers], and what they are to be differentiated by."""
    logits = LOGITS.clone().requires_grad_()
    return token_logps(logits).sum(dim=1), logits


def gradient_of_the_penalised_reward() -> Tensor:
    policy, logits = policy_and_logits()
    return gradient(penalised(policy, REFERENCE.sum(dim=1), REWARDS, BETA), logits)


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("samples", [2, 3])
def test_the_expected_gradient_of_rloo_is_that_of_the_penalised_reward(samples: int) -> None:
    """E grad loss = -grad(E r - beta KL): leaving out does not bias, nor does the penalty without a
    gradient of its own (RLOO, arXiv 2402.14740, eq. 8).
    """
    policy, logits = policy_and_logits()
    drawn = torch.cartesian_prod(*[torch.arange(ANSWERS)] * samples)
    losses = Loss.of("reinforce", beta=BETA)(
        Logps(
            policy=policy[drawn],
            reference=REFERENCE.sum(dim=1)[drawn],
            rewards=REWARDS[drawn],
            length=torch.full_like(drawn, 2),
        )
    )
    chance = policy.detach()[drawn].sum(dim=1).exp()
    found = gradient((chance * losses).sum(), logits)
    assert_close(found, -gradient_of_the_penalised_reward(), rtol=1e-9, atol=1e-12)


def of_states(first: Tensor, second: Tensor) -> Tensor:
    """Values of both states of each answer, [answers, 2]: of the prompt, [], and after each first
    token, [tokens].
    """
    return torch.stack((first.expand(ANSWERS), second.repeat_interleave(TOKENS)), dim=1)


def true_values() -> Tensor:
    """What is still to come of the penalised reward, in expectation."""
    logps = token_logps(LOGITS)
    score = BETA * (logps - REFERENCE)
    after = (logps[:, 1].exp() * (REWARDS - score[:, 1])).view(TOKENS, TOKENS).sum(dim=1)
    prompt = (LOGITS[0].softmax(0) * (after - score[::TOKENS, 0])).sum()
    return of_states(prompt, after)


VALUES = {
    "none": torch.zeros(ANSWERS, 2).double(),
    "wrong": of_states(normal(3, 1)[0], 5 * normal(4, TOKENS)),
    "true": true_values(),
}


def gradient_of_ppo(values: Tensor, lambda_: float) -> Tensor:
    """Expected over the answers of the policy that sampled, in the unit of the advantages before
    they were whitened.
    """
    ppo = Loss.of("ppo", beta=BETA, lambda_=lambda_, whiten_scores="none")
    assert ppo.critic is not None
    logits = LOGITS.clone().requires_grad_()
    tokens = token_logps(logits)
    experience = ppo.critic.experience(
        [
            Sampled(logps=own, reference=other, values=value, lengths=[2], scores=[reward])
            for own, other, value, reward in zip(
                tokens.detach(), REFERENCE, values, REWARDS.tolist(), strict=True
            )
        ],
        Moments(),
    )
    losses = [
        ppo(
            Logps(
                policy=own.sum().view(1, 1),
                reference=other.sum().view(1, 1),
                length=torch.full((1, 1), 2.0),
                tokens=own,
                experience=past,
            )
        )
        for own, other, past in zip(tokens, REFERENCE, experience, strict=True)
    ]
    raw = torch.cat([past.returns - past.values for past in experience])
    unit = raw.std(correction=0) * experience[0].scale
    chance = tokens.detach().sum(dim=1).exp()
    return unit * gradient((chance * torch.cat(losses)).sum(), logits)


@pytest.mark.parametrize("values", VALUES)
def test_the_first_step_of_ppo_is_the_policy_gradient_whatever_the_values(values: str) -> None:
    """At ratio 1 and lambda 1 the values are a baseline of the state: E grad loss = -grad(E r -
    beta KL) (GAE, arXiv 1506.02438, eq. 18; PPO, arXiv 1707.06347, eq. 7).
    """
    found = gradient_of_ppo(VALUES[values], lambda_=1.0)
    assert_close(found, -gradient_of_the_penalised_reward(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_below_lambda_one_ppo_has_no_bias_where_the_values_are_true_and_some_where_not(
    lambda_: float,
) -> None:
    """GAE is unbiased at lambda < 1 only with V = V^pi (arXiv 1506.02438, section 3)."""
    expected = -gradient_of_the_penalised_reward()
    assert_close(gradient_of_ppo(VALUES["true"], lambda_), expected, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(gradient_of_ppo(VALUES["wrong"], lambda_), expected, rtol=0.1)


@pytest.mark.parametrize(
    ("loss", "unit"),
    [
        (Loss.of("sigmoid_norm", beta=0.2), 2 * 0.2),
        (Loss.of("hinge_norm", gamma=0.2), 4 * 0.2),
        (Loss.of("ipo", tau=0.2), 4 / 0.2),
    ],
    ids=["sigmoid_norm", "hinge_norm", "ipo"],
)
def test_on_its_own_pairs_a_loss_first_climbs_the_win_rate_over_the_reference(
    loss: Loss, unit: float
) -> None:
    """Where policy = reference, E grad f(Delta) = 4 f'(0) grad E P(y > y_ref), of DPO -2 beta, of
    hinge-norm -4 gamma, of IPO -4/tau times it (GPO, arXiv 2402.05749, of pairs that both are the
    policy's, with labels by their probability).
    """
    policy, logits = policy_and_logits()
    own = policy.detach()
    chosen, rejected = torch.cartesian_prod(torch.arange(ANSWERS), torch.arange(ANSWERS)).T
    # either of the two may have been drawn first
    chance = 2 * (own[chosen] + own[rejected]).exp() * WINS[chosen, rejected]
    found = gradient((chance * loss(met(policy, own, chosen, rejected))).sum(), logits)
    win_rate = policy.exp() @ WINS @ own.exp()
    assert_close(found, -unit * gradient(win_rate, logits), rtol=1e-9, atol=1e-12)


def test_soft_labels_climb_the_win_rate_as_labels_drawn_by_them_do() -> None:
    """-2 beta grad E P(y > y_ref) too: DPO with the judge's probability (cDPO's loss with the
    certainty of each pair; RLAIF's soft labels, arXiv 2309.00267).
    """
    policy, logits = policy_and_logits()
    own = policy.detach()
    first, second = torch.cartesian_prod(torch.arange(ANSWERS), torch.arange(ANSWERS)).T
    dpo = Loss.of("sigmoid_norm", beta=0.2, soft_labels=True)
    losses = dpo(met(policy, own, first, second, WINS[first, second]))
    found = gradient(((own[first] + own[second]).exp() * losses).sum(), logits)
    win_rate = policy.exp() @ WINS @ own.exp()
    assert_close(found, -2 * 0.2 * gradient(win_rate, logits), rtol=1e-9, atol=1e-12)


def gradient_of_spin(data: Tensor) -> Tensor:
    """Expected where the previous iterate is the policy, and the data have these log-probs."""
    policy, logits = policy_and_logits()
    own = policy.detach()
    chosen, rejected = torch.cartesian_prod(torch.arange(ANSWERS), torch.arange(ANSWERS)).T
    losses = Loss.of("spin", lambda_=0.5)(met(policy, own, chosen, rejected))
    return gradient(((data[chosen] + own[rejected]).exp() * losses).sum(), logits)


def test_spin_stands_still_where_the_policy_is_the_data_and_only_there() -> None:
    """p_theta = p_data is the fixed point (SPIN, arXiv 2401.01335, theorem 5.2); elsewhere the
    gradient is lambda / 2 that of the data's negative log-likelihood.
    """
    policy, logits = policy_and_logits()
    assert_close(gradient_of_spin(policy.detach()), torch.zeros_like(logits), rtol=0, atol=1e-12)
    data = REWARDS.log_softmax(0)
    likelihood = gradient((data.exp() * policy).sum(), logits)
    assert likelihood.norm() > 0.1
    assert_close(gradient_of_spin(data), -0.25 * likelihood, rtol=1e-9, atol=1e-12)

"""RSO against pairs of other sources: how near to the optimal policy its accepted answers lie, and
what maximum likelihood makes of pairs of them.
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from dapflow.tasks.judging.matches import first_round
from dapflow.tasks.pairing.acceptance import rso_accept
from dapflow.tasks.training.losses.loss import Loss
from tests.theory.tables import divergence, met, minimum, normal, penalised, tilted

POLICY = torch.tensor([0.35, 0.25, 0.2, 0.15, 0.05]).double()
REWARDS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]).double()
OPTIMUM = tilted(POLICY.log(), REWARDS, beta=0.5).exp()


def accepted(rewards: Tensor, drawn: list[int], keep: int, beta: float, rng: Random) -> list[int]:
    """The answers that Algorithm 1 keeps of those that were drawn."""
    scores = rewards[drawn].tolist()
    return [drawn[one.index] for one in rso_accept(scores, keep, beta, rng)]


def variation(candidates: int, keep: int) -> float:
    """Total variation between the law of all accepted answers, of whichever sweep, and pi_r."""
    rng, counts = Random(0), torch.zeros(5).double()
    for _ in range(8000 // keep):
        drawn = rng.choices(range(5), POLICY.tolist(), k=candidates)
        for answer in accepted(REWARDS, drawn, keep, 0.5, rng):
            counts[answer] += 1
    return float((counts / counts.sum() - OPTIMUM).abs().sum() / 2)


def test_accepted_answers_come_to_be_draws_from_the_optimal_policy_as_candidates_grow() -> None:
    """Theorem 1 of RSO (arXiv 2309.06657): the law of what Algorithm 1 accepts tends to pi_r as
    candidates go to infinity, at a fixed number kept.
    """
    assert float((POLICY - OPTIMUM).abs().sum() / 2) > 0.4
    few, more, many = (variation(candidates, keep=4) for candidates in (8, 16, 128))
    assert few > 1.8 * more > 1.8 * 1.8 * many
    assert many < 0.02  # 8,000 draws from pi_r itself lie about .01 away


@pytest.mark.parametrize("keep", [4, 32, 128])
def test_of_twice_as_many_candidates_accepted_answers_stay_far_from_it(keep: int) -> None:
    """Theorem 1 of RSO (arXiv 2309.06657) is not about half of all candidates: later sweeps fill up
    with whatever is left, however many there are.
    """
    assert variation(2 * keep, keep) > 0.15


@dataclass(frozen=True, kw_only=True)
class Table:
    """Answers without any likeness among them: reference and rewards, [answers]."""

    reference: Tensor
    rewards: Tensor
    beta: float
    seed: int

    def pairs(self, source: str, count: int) -> Tensor:
        """Labelled by Bradley-Terry, chosen first, [2, pairs], without those of equal answers.

        source: `direct`, a policy that likes what is worse; `sft`; `rso`, the optimal policy;
        `algorithm`, the first round of 8 accepted of 64.
        """
        draw, rng = np.random.default_rng(self.seed), Random(self.seed)
        if source == "algorithm":
            matches = list[tuple[int, int]]()
            while len(matches) < count:
                drawn = np.unique(draw.choice(len(self.rewards), 64, p=self.reference.exp()))
                kept = accepted(self.rewards, drawn.tolist(), 8, self.beta, rng)
                matches += first_round(kept, rng)
            first, second = torch.tensor(matches[:count]).T
        else:
            tilt = {"direct": -0.25, "sft": 0.0, "rso": 1.0}[source]
            law = tilted(self.reference, tilt * self.rewards, self.beta).exp()
            first, second = torch.tensor(draw.choice(len(law), (2, count), p=law / law.sum()))
        wins = (self.rewards[first] - self.rewards[second]).sigmoid() > torch.tensor(
            draw.random(count)
        )
        labelled = torch.stack((torch.where(wins, first, second), torch.where(wins, second, first)))
        return labelled[:, first != second]


def random_table(seed: int, answers: int, beta: float) -> Table:
    return Table(
        reference=normal(2 * seed, answers).log_softmax(0),
        rewards=normal(2 * seed + 1, answers),
        beta=beta,
        seed=seed,
    )


def test_in_a_table_pairs_nearer_to_the_optimal_policy_estimate_it_better() -> None:
    """Maximum likelihood of Bradley-Terry labels is the more accurate about pi* the nearer to it
    its pairs are drawn (RSO, arXiv 2309.06657, section 3.1); the prior of the rewards is the true
    one, so nothing is tuned.
    """
    answers, count, beta, seeds = 256, 512, 0.25, 16
    tables = [random_table(seed, answers, beta) for seed in range(seeds)]
    reference = torch.stack([table.reference for table in tables])
    optimum = torch.stack([tilted(t.reference, t.rewards, beta) for t in tables])
    dpo = Loss.of("sigmoid_norm", beta=beta)

    def distances(source: str) -> Tensor:
        """KL(pi* || estimate), [seeds], of all tables at once."""
        pairs = [table.pairs(source, count) + answers * n for n, table in enumerate(tables)]
        chosen, rejected = torch.cat(pairs, dim=1)

        def objective(rewards: Tensor) -> Tensor:
            policy = tilted(reference, rewards, beta).flatten()
            losses = dpo(met(policy, reference.flatten(), chosen, rejected))
            return losses.sum() + rewards.square().sum() / 2

        estimate = minimum(objective, torch.zeros_like(reference), tolerance=1e-5)
        return divergence(optimum, tilted(reference, estimate, beta))

    direct, sft, rso, algorithm = map(distances, ("direct", "sft", "rso", "algorithm"))
    assert direct.mean() > sft.mean() > rso.mean()
    assert (sft - rso).mean() > 2 * (sft - rso).std() / math.sqrt(seeds)
    assert algorithm.mean() < 1.25 * rso.mean()


def test_where_the_policy_cannot_hold_the_reward_its_own_pairs_end_highest() -> None:
    """grad J = Cov_pi(features, r - r_theta) / beta, so that the policy's own pairs lead to the
    best of its class (OAIF, arXiv 2402.04792), and none of another law higher. That RSO's pairs end
    above the initial policy's (arXiv 2309.06657, section 1) is no theorem: here it does in three of
    six draws.
    """
    answers, width, beta = 400, 6, 0.5
    features, mixed = normal(100, answers, width), normal(101, width, width)
    curved = ((features @ mixed) * features).sum(dim=1)
    rewards = features @ normal(102, width) / width**0.5
    rewards = rewards + 0.5 * (curved - curved.mean()) / curved.std()
    rewards = (rewards - rewards.mean()) / rewards.std()
    reference = (0.7 * normal(103, answers)).log_softmax(0)
    first, second = torch.triu_indices(answers, answers, offset=1)
    certain = (rewards[first] - rewards[second]).sigmoid()
    dpo = Loss.of("sigmoid_norm", beta=beta, soft_labels=True)

    def policy_of(weights: Tensor) -> Tensor:
        return tilted(reference, features @ weights, beta)

    def after(law: Tensor, start: Tensor) -> Tensor:
        """The weights that DPO ends with on all pairs, by the chance that both are drawn."""
        chance = (law[first] + law[second]).exp()

        def objective(weights: Tensor) -> Tensor:
            pairs = met(policy_of(weights), reference, first, second, certain)
            return (chance * dpo(pairs)).sum()

        return minimum(objective, start, tolerance=1e-4)

    def height(weights: Tensor) -> Tensor:
        return penalised(policy_of(weights), reference, rewards, beta)

    offline = [
        after(tilted(reference, tilt * rewards, beta), torch.zeros(width).double())
        for tilt in (-0.25, 0.0, 1.0)
    ]
    online = offline[-1]
    for _ in range(3):
        online = (online + after(policy_of(online), online)) / 2
    direct, sft, rso = map(height, offline)
    best = height(minimum(lambda weights: -height(weights), online, tolerance=1e-6))
    assert direct < sft < height(online) <= best
    assert rso < height(online)
    assert height(online) > 0.99 * best  # not all: the sigmoid bends

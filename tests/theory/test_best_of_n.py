"""Best of N: how far it moves a policy, how often it wins, and what it is worth, over all that can
be drawn.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations, product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dapflow.tasks.pairing.acceptance import Acceptance
from dapflow.tasks.pairing.answers import accept_rows
from dapflow.tasks.sampling.sweep import best_of_n
from tests.theory.tables import divergence, normal


def best_of_each(draws: Sequence[Sequence[int]]) -> list[int]:
    """The answer that is accepted of each draw, where a higher number is the better answer."""
    rows = [
        {
            "digest": str(prompt),
            "text": str(answer),
            "reward": float(answer),
            "finished": True,
            "note": None,
        }
        for prompt, drawn in enumerate(draws)
        for answer in drawn
    ]
    accepted = accept_rows(rows, Acceptance(rule="best"), seed=0)
    return [int(str(rows[place]["text"])) for place in sorted(accepted)]


def law_of_best(policy: Tensor, n: int) -> Tensor:
    """Of the accepted of N answers, [answers]: over all draws, by their probability."""
    draws = list(product(range(len(policy)), repeat=n))
    chances = policy[torch.tensor(draws)].prod(dim=1)
    return torch.zeros_like(policy).index_add(0, torch.tensor(best_of_each(draws)), chances)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_best_of_n_is_no_further_from_the_policy_than_its_bound(n: int) -> None:
    """P(y) = F(y)^N - F(y-)^N, and KL <= log N - (N - 1) / N (Beirami et al., arXiv 2401.01879,
    section 2 and theorem 3.1).
    """
    policy = normal(0, 5).softmax(0)
    law, below = law_of_best(policy, n), policy.cumsum(0)
    assert_close(law, below**n - (below - policy) ** n)
    assert divergence(law.log(), policy.log()) <= math.log(n) - (n - 1) / n + 1e-12


def test_the_bound_is_nearly_reached_where_no_answer_is_likely() -> None:
    """The gap closes as the likeliest answer's probability falls (Beirami et al., arXiv 2401.01879,
    section 3).
    """
    bound = math.log(2) - 1 / 2
    shares = [
        float(divergence(law_of_best(even, 2).log(), even.log())) / bound
        for even in (torch.full((answers,), 1 / answers).double() for answers in (2, 8, 48))
    ]
    assert shares[0] < 0.7 < shares[1] < 0.995 < shares[2] < 1


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_beats_one_more_answer_n_times_in_n_plus_1_without_ties(n: int) -> None:
    """The best of N + 1 is any of them alike, and with N of them it is among the N (Beirami et al.,
    arXiv 2401.01879, section 5: N / (N + 1) is the most).
    """
    orders = list(permutations(range(n + 1)))
    winners = best_of_each([order[:n] for order in orders])
    wins = sum(best > order[n] for best, order in zip(winners, orders, strict=True))
    assert Fraction(wins, len(orders)) == Fraction(n, n + 1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_ties_bring_the_win_rate_of_best_of_n_below_n_in_n_plus_1(n: int) -> None:
    """Half a win for a tie: less than N / (N + 1) where answers repeat (Beirami et al., arXiv
    2401.01879, section 5).
    """
    policy = normal(0, 5).softmax(0)
    below = policy.cumsum(0) - policy
    win_rate = float((law_of_best(policy, n) * (below + policy / 2)).sum())
    assert 0.5 < win_rate < n / (n + 1)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_mean_of_the_best_is_that_of_the_highest_order_statistic(n: int) -> None:
    """E max of N even draws from 0 .. M - 1 is sum_k k ((k + 1)^N - k^N) / M^N."""
    verdicts = [
        {"prompt_id": str(prompt), "outcome": "scored", "score": float(score)}
        for prompt, drawn in enumerate(product(range(6), repeat=n))
        for score in drawn
    ]
    expected = sum(k * ((k + 1) ** n - k**n) for k in range(6)) / 6**n
    assert best_of_n(verdicts) == pytest.approx(expected)  # type: ignore[arg-type]

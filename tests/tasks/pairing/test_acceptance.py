"""RSO's acceptance (METHODS: Algorithm 1 of arXiv 2309.06657; pitfall P18): the distribution, its
limits, and the odd cases.
"""

import math
from itertools import permutations
from random import Random
from typing import Any

import pytest
from scipy.stats import chisquare

from dapflow.tasks.pairing.acceptance import Acceptance, accept_for_prompt, rso_accept


def first_accepted(rewards: list[float], beta: float, trials: int) -> list[int]:
    rng, counts = Random(0), [0] * len(rewards)
    for _ in range(trials):
        counts[rso_accept(rewards, 1, beta, rng)[0].index] += 1
    return counts


def test_one_accepted_candidate_follows_the_reweighted_distribution() -> None:
    # Candidates drawn from the policy stand for it equally; accepting with exp((r - r_max)/beta)
    # and taking one at random in a shuffled sweep must give pi(y) exp(r/beta) / Z up to the early
    # stop: the first accepted of a random order is, of all accepted ones, a uniform draw, so P(i) =
    # E[accept_i / number accepted | somebody accepted].
    rewards, beta, trials = [0.0, 0.5, 1.0, 1.5], 1.0, 40_000
    chance = [math.exp((r - 1.5) / beta) for r in rewards]
    expected = [0.0] * 4
    for pattern in range(1, 16):
        accepted = [i for i in range(4) if pattern >> i & 1]
        weight = math.prod(chance[i] if i in accepted else 1 - chance[i] for i in range(4))
        for i in accepted:
            expected[i] += weight / len(accepted)
    assert sum(expected) == pytest.approx(1.0)  # the best is always accepted
    assert (
        chisquare(
            first_accepted(rewards, beta, trials), [trials * share for share in expected]
        ).pvalue
        > 0.001
    )


def test_accepted_candidates_of_one_sweep_match_exp_of_reward_over_beta() -> None:
    # A discrete policy over 5 answers, 64 candidates drawn from it: with room for all that one
    # sweep accepts, answer a is accepted with probability proportional to pi(a) exp(r_a / beta),
    # the optimal policy of eq. 3.
    policy, reward, beta, rng = (
        [0.4, 0.3, 0.15, 0.1, 0.05],
        [0.0, 0.4, 0.8, 1.2, 1.6],
        0.7,
        Random(1),
    )
    counts = [0] * 5
    for _ in range(1500):
        drawn = rng.choices(range(5), policy, k=64)
        drawn[rng.randrange(64)] = (
            4  # the maximum is always among them, so that r_max is the same in every trial
        )
        for one in rso_accept([reward[a] for a in drawn], 64, beta, rng):
            if one.sweep == 0:
                counts[drawn[one.index]] += 1
    expected = [
        63 * p + (64 - 63) * (a == 4) for a, p in enumerate(policy)
    ]  # 63 drawn, one planted
    weights = [e * math.exp(r / beta) for e, r in zip(expected, reward, strict=True)]
    total = sum(counts)
    assert chisquare(counts, [total * w / sum(weights) for w in weights]).pvalue > 0.001


def test_a_small_beta_keeps_the_best_k() -> None:
    draw = Random(3)
    rewards = [draw.gauss(0, 1) for _ in range(64)]
    taken = rso_accept(rewards, 8, 1e-6, Random(0))
    assert sorted(one.index for one in taken) == sorted(
        sorted(range(64), key=rewards.__getitem__)[-8:]
    )


def test_a_large_beta_accepts_whoever_comes() -> None:
    taken = rso_accept([0.0, 5.0, -5.0, 1.0], 4, 1e9, Random(0))
    assert sorted(one.index for one in taken) == [0, 1, 2, 3]
    assert {one.sweep for one in taken} == {0}


def test_mean_accepted_reward_is_that_of_the_specification() -> None:
    # METHODS section 2: r ~ N(0, 1), 64 candidates, 8 kept: 1.604 at beta .05, 1.34 at .5, .185 at
    # 5
    for beta, expected in ((0.05, 1.604), (0.5, 1.34), (5.0, 0.185)):
        rng, total, trials = Random(0), 0.0, 400
        for _ in range(trials):
            rewards = [rng.gauss(0, 1) for _ in range(64)]
            total += sum(rewards[one.index] for one in rso_accept(rewards, 8, beta, rng)) / 8
        assert total / trials == pytest.approx(expected, abs=0.06)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    # Equal rewards, so every place must be accepted equally often although a sweep ends early.
    counts, rng = [0] * 16, Random(0)
    for _ in range(4000):
        for one in rso_accept([1.0] * 16, 4, 5.0, rng):
            counts[one.index] += 1
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("keep", [1, 3, 4, 9])
def test_nobody_is_accepted_twice_and_the_pool_can_run_dry(keep: int) -> None:
    taken = rso_accept([0.0, 0.0, -800.0, 3.0], keep, 0.5, Random(1))
    assert len(taken) == len({one.index for one in taken}) == min(keep, 4)


def verdict(n: int, score: float | None, text: str, outcome: str = "scored") -> dict[str, Any]:
    return {
        "prompt_id": "v-0",
        "completion_id": f"v-{n}",
        "score": score,
        "outcome": outcome,
        "text": text,
    }


def test_duplicates_and_failures_take_no_part_and_say_why() -> None:
    verdicts = [
        verdict(0, 1.0, "a"),
        verdict(1, 1.0, "a"),
        verdict(2, None, "b", "invalid"),
        verdict(3, 0.0, "c"),
    ]
    rows = accept_for_prompt(verdicts, Acceptance(keep=4, beta=0.5, unit="score"), Random(0))
    assert [(row["accepted"], row["note"]) for row in rows] == [
        (True, None),
        (False, "duplicate"),
        (False, "invalid"),
        (True, None),
    ]
    assert rows[2]["reward"] is None


def test_a_prompt_with_one_different_candidate_is_left_out() -> None:
    verdicts = [verdict(0, 1.0, "same"), verdict(1, 1.0, "same"), verdict(2, 1.0, "same")]
    rows = accept_for_prompt(verdicts, Acceptance(), Random(0))
    assert not any(row["accepted"] for row in rows)
    assert [row["note"] for row in rows] == ["too_few_candidates", "duplicate", "duplicate"]


def test_the_rule_all_keeps_every_able_candidate() -> None:
    rows = accept_for_prompt(
        [verdict(n, -9.0 * n, str(n)) for n in range(12)], Acceptance(rule="all", keep=2), Random(0)
    )
    assert all(row["accepted"] for row in rows)


def test_every_order_of_distinct_rewards_ends() -> None:
    for order in permutations([0.0, 1.0, 2.0]):
        assert len(rso_accept(order, 2, 0.1, Random(0))) == 2


def test_beta_in_standard_deviations_is_the_same_whatever_the_scale_of_the_judge() -> None:
    rng = Random(4)
    prompts = [[rng.gauss(mean, 2.0) for _ in range(16)] for mean in (0.0, 30.0, -7.0) * 200]
    scaled = Acceptance(beta=0.5).in_scores(prompts)
    assert (scaled.unit, scaled.beta) == ("score", pytest.approx(1.0, rel=0.05))
    larger = Acceptance(beta=0.5).in_scores([[100 * r for r in rewards] for rewards in prompts])
    assert larger.beta == pytest.approx(100 * scaled.beta)
    assert rso_accept(prompts[0], 4, scaled.beta, Random(1)) == rso_accept(
        [100 * r for r in prompts[0]], 4, larger.beta, Random(1)
    )


@pytest.mark.parametrize("rewards", [[], [[1.0]], [[2.0, 2.0], [3.0, 3.0]]])
def test_where_no_scores_differ_any_beta_will_do(rewards: list[list[float]]) -> None:
    assert Acceptance(beta=0.5).in_scores(rewards).beta == 0.5


def test_beta_in_scores_stays_as_it_is() -> None:
    assert Acceptance(beta=0.5, unit="score").in_scores([[0.0, 9.0]]).beta == 0.5

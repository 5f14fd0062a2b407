"""Pairing: disjoint first rounds, knockouts, and odd cases that never become a label (pitfalls P7,
P15, P16).
"""

import math
from dataclasses import replace
from random import Random
from statistics import fmean, stdev
from typing import get_args

import pytest

from dapflow.tasks.pairing.pairs import (
    Candidate,
    Pair,
    Pairing,
    compare,
    contrast,
    first_round,
    match_of,
    scored_pairs,
    tournament,
)


def candidate(n: int, reward: float, text: str | None = None, finished: bool = True) -> Candidate:
    return Candidate(id=f"c{n}", text=text or f"text {n}", reward=reward, finished=finished)


EIGHT = [candidate(n, float(n)) for n in range(8)]
RULES = get_args(Pairing.model_fields["rule"].annotation)


def paired(rule: str, candidates: list[Candidate], seed: int = 0, **settings: int) -> list[Pair]:
    return Pairing.model_validate({"rule": rule, **settings}).of(candidates, Random(seed))


def test_the_higher_reward_is_chosen_whatever_the_order() -> None:
    a, b = candidate(0, 1.0), candidate(1, 3.0)
    for match in (compare(a, b), compare(b, a)):
        assert (match.chosen.id, match.rejected.id, match.margin, match.dropped) == (
            "c1",
            "c0",
            2.0,
            None,
        )


@pytest.mark.parametrize("rule", RULES)
def test_all_equal_rewards_give_no_label_and_the_rule_ends(rule: str) -> None:
    pairs = paired(rule, [candidate(n, 1.0) for n in range(8)])
    assert pairs or rule == "contrast"  # which needs good and bad ones
    assert {match.dropped for match in pairs} <= {"tie"}


@pytest.mark.parametrize("rule", RULES)
def test_fewer_than_two_candidates_give_no_pair(rule: str) -> None:
    assert paired(rule, []) == paired(rule, [candidate(0, 1.0)]) == []


def test_identical_texts_are_dropped_even_when_their_rewards_differ() -> None:
    assert compare(candidate(0, 1.0, "same"), candidate(1, 2.0, "same")).dropped == "identical"


def test_a_finished_and_an_unfinished_answer_are_no_label_whoever_wins() -> None:
    finished, cut = candidate(0, 1.0), candidate(1, 2.0, finished=False)
    assert compare(finished, cut).dropped == "truncated"
    assert compare(candidate(0, 3.0), cut).dropped == "truncated"
    assert compare(candidate(0, 1.0, finished=False), cut).dropped is None  # both are cut off


@pytest.mark.parametrize("rule", RULES)
def test_a_judge_without_preference_teaches_no_length(rule: str) -> None:
    # Answers of 1 to 30 words are cut off at 20; rewards have nothing to do with either.
    rng, differences = Random(0), list[float]()
    for seed in range(2000):
        candidates = list[Candidate]()
        for n in range(6):
            words = rng.randint(1, 30)
            candidates.append(
                Candidate(
                    id=f"c{n}",
                    text=f"{n} " + "word " * min(words, 20),
                    reward=rng.gauss(0, 1),
                    finished=words <= 20,
                    logp=rng.gauss(0, 1),
                )
            )
        differences += [
            len(pair.chosen.text) - len(pair.rejected.text)
            for pair in paired(rule, candidates, seed)
            if pair.dropped is None
        ]
    assert abs(fmean(differences)) < 3 * stdev(differences) / len(differences) ** 0.5


def test_those_that_ended_meet_each_other_and_so_do_those_that_were_cut_off() -> None:
    candidates = [candidate(n, float(n), finished=n < 4) for n in range(7)]
    for rule in RULES:
        pairs = paired(rule, candidates)
        assert {pair.chosen.finished == pair.rejected.finished for pair in pairs} <= {True}
    assert len(paired("first-round", candidates)) == 2 + 1
    [match] = paired("best-worst", candidates)  # of the four that ended
    assert (match.chosen.id, match.rejected.id) == ("c3", "c0")


def test_a_first_round_pairs_everybody_once() -> None:
    pairs = first_round(EIGHT, Random(0))
    assert len(pairs) == 4  # n / 2
    assert sorted(one.id for match in pairs for one in (match.chosen, match.rejected)) == sorted(
        one.id for one in EIGHT
    )


def test_an_odd_one_out_sits_out_the_first_round() -> None:
    assert len(first_round(EIGHT[:7], Random(0))) == 3


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_a_tournament_has_n_minus_1_pairs_and_the_best_wins_it(count: int) -> None:
    pairs = tournament(EIGHT[:count], Random(1))
    assert len(pairs) == count - 1
    assert pairs[-1].chosen.reward == count - 1
    assert (
        len({match.rejected.id for match in pairs}) == count - 1
    )  # each but the winner is knocked out once


def test_best_against_worst_is_one_pair() -> None:
    [match] = paired("best-worst", EIGHT)
    assert (match.chosen.reward, match.rejected.reward) == (7.0, 0.0)


@pytest.mark.parametrize(("pairs", "expected"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_extremes_are_the_best_against_the_worst_and_so_on(pairs: int, expected: int) -> None:
    met = paired("extremes", EIGHT, pairs=pairs)
    assert [(pair.chosen.reward, pair.rejected.reward) for pair in met] == [
        (7.0 - n, float(n)) for n in range(expected)
    ]
    assert len(met) == Pairing(rule="extremes", pairs=pairs).most(8)


def test_the_seed_decides_who_meets_whom() -> None:
    def met(seed: int) -> list[frozenset[str]]:
        return [
            frozenset((match.chosen.id, match.rejected.id))
            for match in first_round(EIGHT, Random(seed))
        ]

    assert met(5) == met(5)
    assert len({frozenset(met(seed)) for seed in range(20)}) > 5


def completion(n: int, text: str | None = None, finish_reason: str = "stop") -> dict[str, str]:
    return {"id": f"c{n}", "text": text or f"text {n}", "finish_reason": finish_reason}


@pytest.mark.parametrize(
    ("score", "outcome", "chosen", "dropped"),
    [
        (0.75, "win", "c0", None),
        (0.25, "lose", "c1", None),
        (0.5, "tie", "c0", "tie"),
        (None, "invalid", "c0", "invalid"),
        (None, "over_budget", "c0", "over_budget"),
        (None, "refused", "c0", "refused"),
    ],
)
def test_a_comparison_makes_a_pair_only_of_a_judgement(
    score: float | None, outcome: str, chosen: str, dropped: str | None
) -> None:
    match = match_of(completion(0), completion(1), {"score": score, "outcome": outcome})
    assert (match.chosen.id, match.dropped) == (chosen, dropped)


def test_a_cut_off_answer_does_not_win_a_comparison_either() -> None:
    match = match_of(
        completion(0, finish_reason="length"), completion(1), {"score": 0.9, "outcome": "win"}
    )
    assert match.dropped == "truncated"


def test_a_bad_answer_meets_the_likeliest_good_one_that_is_less_likely() -> None:
    def one(name: str, reward: float, logp: float) -> Candidate:
        return Candidate(id=name, text=name, reward=reward, finished=True, logp=logp)

    good = [one("g1", 1.0, -5.0), one("g2", 0.5, -9.0), one("g3", 2.0, -1.0)]
    pairs = contrast([*good, one("b1", -1.0, -4.0)], Random(0))
    assert [(pair.chosen.id, pair.rejected.id) for pair in pairs] == [("g1", "b1")]
    both = contrast([*good, one("b1", 0.0, -4.0), one("b2", -1.0, -3.0)], Random(0))
    assert {pair.rejected.id for pair in both} == {"b1", "b2"}
    assert {pair.chosen.id for pair in both} == {
        "g1",
        "g2",
    }  # each good answer once; g3 is likelier than any bad one
    assert contrast([one("g", 1.0, -1.0), one("b", -1.0, -2.0)], Random(0)) == []


@pytest.mark.parametrize("rule", RULES)
def test_pairs_of_log_odds_carry_the_probability_of_their_label(rule: str) -> None:
    # rewards 0 to 3 less 1.5, so that contrast has good and bad ones
    four = [candidate(n, n - 1.5) for n in range(4)]
    four = [replace(one, logp=-one.reward) for one in four]
    settings = Pairing.model_validate({"rule": rule})
    plain, soft = (
        scored_pairs(settings, four, Random(0), "p", "Why?", log_odds) for log_odds in (False, True)
    )
    assert soft
    for row, other in zip(soft, plain, strict=True):
        assert row["probability"] == pytest.approx(1 / (1 + math.exp(-row["margin"])))
        assert 0.5 < row["probability"] < 1
        assert other == row | {"probability": None}

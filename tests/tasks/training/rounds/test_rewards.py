"""What was cut off must not win by it: caps by hand, and what share of the advantages they are."""

from typing import Any

import pytest

from dapflow.tasks.training.rounds.rewards import capped, cut_off_figures, cut_off_variance


def completions(*answers: str) -> list[dict[str, Any]]:
    """`a1 stop`: the first answer to prompt a, which ended by itself."""
    return [
        {"id": name, "prompt_id": name[0], "finish_reason": reason}
        for name, reason in (answer.split() for answer in answers)
    ]


def accepted(rewards: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"completion_id": name, "prompt_id": name[0], "reward": reward}
        for name, reward in rewards.items()
    ]


def test_what_was_cut_off_gets_no_more_than_the_worst_finished_answer_to_its_prompt() -> None:
    rows = completions("a1 stop", "a2 stop", "a3 length", "a4 length", "b1 stop", "b2 length")
    scores = {"a1": 5.0, "a2": 3.0, "a3": 9.0, "a4": 1.0, "b1": -7.0, "b2": -8.0}
    # of prompt b the worst finished answer has -7, which is nothing to prompt a
    assert capped(rows, scores) == scores | {"a3": 3.0}


def test_where_no_answer_is_finished_the_cap_is_the_rounds_mean_less_a_standard_deviation() -> None:
    rows = completions("a1 length", "a2 length", "b1 stop", "b2 stop")
    scores: dict[str, float | None] = {"a1": 5.0, "a2": -1.0, "b1": 3.0, "b2": 1.0}
    # mean 2, variance (9 + 9 + 1 + 1) / 4 = 5
    assert capped(rows, scores) == scores | {"a1": pytest.approx(2 - 5**0.5)}


def test_an_answer_without_a_score_has_no_reward_and_sets_no_cap() -> None:
    rows = completions("a1 stop", "a2 stop", "a3 length")
    assert capped(rows, {"a1": None, "a2": 4.0, "a3": 6.0}) == {"a2": 4.0, "a3": 4.0}
    assert capped(rows, {"a1": None, "a2": None, "a3": None}) == {}
    assert capped([], {}) == {}


def test_rewards_that_are_the_scores_owe_nothing_to_the_cap() -> None:
    scores = {"a1": 5.0, "a2": 3.0, "a3": 1.0}
    assert cut_off_variance(accepted(scores), scores) == 0.0
    assert cut_off_variance(accepted({"a1": 2.0, "a2": 2.0}), {"a1": 2.0, "a2": 2.0}) == 0.0
    assert cut_off_variance([], {}) == 0.0


def test_of_equal_scores_all_variance_is_the_caps() -> None:
    scores = {"a1": 5.0, "a2": 5.0, "b1": 1.0, "b2": 1.0}
    assert cut_off_variance(accepted(scores | {"a2": 2.0}), scores) == pytest.approx(1.0)


def test_the_share_by_hand() -> None:
    # rewards 4, 0 in place of 4, 2: advantages of the scores 2, -2; the cap's 2, -2
    assert cut_off_variance(accepted({"a1": 4.0, "a2": 0.0}), {"a1": 4.0, "a2": 2.0}) == 0.5
    # one answer a prompt, against the mean of the round: scores 2, -2, 0; of the cap 1, 1, -2
    rewards, scores = {"a1": 4.0, "b1": 0.0, "c1": -1.0}, {"a1": 4.0, "b1": 0.0, "c1": 2.0}
    assert cut_off_variance(accepted(rewards), scores) == pytest.approx(6 / 14)


def test_the_figure_of_a_training_is_the_mean_over_its_rounds() -> None:
    shares = [0.2, 0.2, None, None, 0.6]  # two steps a round
    logs = [{"step": step, "cut_off_variance": share} for step, share in enumerate(shares)]
    [figure] = cut_off_figures(logs, 2)
    assert (figure["name"], figure["value"]) == ("cut_off_variance", pytest.approx(0.4))
    assert cut_off_figures(logs[2:4], 2) == []

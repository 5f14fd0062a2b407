"""Intervals of the closing table: over prompts, and with several seeds over seeds too; paired; and
what was not measured stays so.
"""

import io

import numpy as np
import pytest
from rich.console import Console

from dapflow.flows.report.drawing.methods_table import (
    making_rows,
    markdown,
    outcome_rows,
    print_closing,
)
from dapflow.flows.report.making import made_of
from dapflow.flows.report.methods_table import differences, interval_of, mean_of_rows, means


def test_the_mean_is_that_of_all_judged_prompts_and_seeds_spread_the_interval() -> None:
    rng = np.random.default_rng(1)
    prompts = [f"p{n}" for n in range(60)]
    one = {p: float(rng.random() < 0.5) for p in prompts}
    alike = interval_of({0: one, 1: one}, shares=True)
    apart = interval_of(
        {
            0: dict.fromkeys(prompts, 1.0) | {"p0": 0.0},
            1: dict.fromkeys(prompts, 0.0) | {"p0": 1.0},
        },
        shares=True,
    )
    assert alike["value"] == pytest.approx(sum(one.values()) / 60)
    assert apart["value"] == pytest.approx(0.5)
    assert (
        apart["low"] < 0.1 and apart["high"] > 0.9
    )  # two seeds that disagree say little about a third
    assert alike["high"] - alike["low"] < 0.35
    assert (alike["prompts"], alike["seeds"]) == (60, 2)


def test_a_prompt_that_one_seed_did_not_judge_counts_where_it_was_judged() -> None:
    assert interval_of({0: {"a": 1.0, "b": 0.0}, 1: {"b": 1.0, "c": 1.0}}, shares=True)[
        "value"
    ] == pytest.approx(3 / 4)


def test_all_won_is_no_certainty_and_nothing_judged_is_no_number() -> None:
    for values in ({0: {"a": 1.0, "b": 1.0}}, {0: {"a": 1.0, "b": 1.0}, 1: {"a": 1.0, "b": 1.0}}):
        won = interval_of(values, shares=True)
        assert won["value"] == won["high"] == 1.0
        assert 0 < won["low"] < 0.5
    for values in ({}, {0: {}}):
        none = interval_of(values, shares=True)
        assert none["value"] is None and none["low"] is None
        assert none["note"] == "no held-out prompt was judged on both sides"
    assert interval_of({0: {"a": 1.0}}, shares=True)["low"] is None


def test_differences_are_taken_prompt_by_prompt_under_the_same_seed() -> None:
    ones, others = (
        {0: {"a": 1.0, "b": 0.5, "c": 0.0}, 2: {"a": 1.0}},
        {0: {"a": 0.0, "b": 0.5}, 1: {"a": 1.0}},
    )
    assert differences(ones, others) == {0: {"a": 1.0, "b": 0.0}}
    same = interval_of(differences(ones, ones), shares=False)
    assert (
        same["value"] == 0.0
        and -1 < same["low"] < 0
        and same["high"] == pytest.approx(-same["low"])
    )


def test_five_prompts_under_several_seeds_are_as_little_sure_as_under_one() -> None:
    few = dict(zip("abcde", (0.89, 0.91, 0.93, 0.95, 0.97), strict=True))
    one, three = (
        interval_of({0: few}, shares=True),
        interval_of({0: few, 1: few, 2: few}, shares=True),
    )
    # of five prompts that all spread little: 0.93 * 0.025^(1/5), and 1 - 0.07 * 0.025^(1/5)
    for found in (one, three):
        assert (found["low"], found["high"]) == pytest.approx((0.4447, 0.9665), abs=1e-3)


def test_a_seed_under_which_nothing_was_judged_says_nothing() -> None:
    one = {f"p{n}": float(n % 3 > 0) for n in range(40)}
    alone, beside = (interval_of(values, shares=True) for values in ({0: one}, {0: one, 1: {}}))
    assert (beside["value"], beside["low"], beside["high"]) == (
        alone["value"],
        alone["low"],
        alone["high"],
    )


def test_a_mean_over_seeds_is_of_those_that_have_the_figure() -> None:
    assert means([{"kl": 1.0, "reward": None}, {"kl": 3.0, "reward": None}]) == {
        "kl": 2.0,
        "reward": None,
    }


def test_shares_of_a_run_are_of_the_rows_that_all_its_iterations_trained_on() -> None:
    assert mean_of_rows([0.0, 1.0], [90.0, 10.0]) == 0.1
    assert mean_of_rows([None, 2.5, 0.5], [90.0, 10.0, 10.0]) == 1.5
    assert mean_of_rows([None, 1.0], [90.0, 0.0]) is None


def test_what_a_method_was_made_of_is_said_as_it_was_measured() -> None:
    figures = {
        "people_prompts": 180.0,
        "people_share": 0.0,
        "own_share": 1.0,
        "mean_lag": 2.5,
        "renewed_share": 0.25,
        "api_answers": 96.0,
    }
    figures |= {
        "api_calls": 192.0,
        "api_usd": 0.0125,
        "models_in_memory": 3.0,
        "model_bytes": 2.5e8,
    }
    assert list(made_of(figures).values()) == [
        "180 prompts, for its reward model or as answers", "100%, 2.5 steps old", "25% of rows", "96 answers, 192 calls, $0.0125", "3 (250 MB)",
    ]  # fmt: skip
    assert set(made_of({}).values()) == {"not measured"}
    nobody = {
        "people_prompts": 0.0,
        "people_share": 0.0,
        "own_share": 0.0,
        "renewed_share": 0.0,
        "api_answers": 0.0,
        "api_calls": 0.0,
    }
    assert list(made_of(nobody).values())[:4] == ["no", "no", "no", "no"]


def test_a_method_that_failed_has_a_row_that_says_why() -> None:
    rate = {"value": 0.5, "low": 0.4, "high": 0.6, "prompts": 64}
    told = {
        "initial": {"judge_reward_before": 1.0, "length_before": 9.0}, "seeds": 1, "budget_tokens": None,
        "methods": [
            {"method": "one", "failed": [], "win_rate": rate, "difference": None, "figures": {"judge_reward_after": 1.5, "seconds": 3.0}},
            {"method": "two", "failed": [{"seed": 0, "why": "no | pair"}], "win_rate": rate | {"value": None}, "difference": None, "figures": {}},
        ],
    }  # fmt: skip
    headers, rows = outcome_rows(told)
    assert headers[:4] == ["method", "win rate", "of prompts", "against one"]
    assert rows[0][:5] == ["(initial policy)", "", "", "", "1.000"]
    assert rows[1] == [
        "one",
        "50.0% [40.0%, 60.0%]",
        "64",
        "",
        "1.500",
        "–",
        "–",
        "–",
        "–",
        "3.0 s",
    ]
    assert rows[2][:2] == ["two", "failed: no | pair"]
    assert [row[0] for row in making_rows(told)[1]] == ["one"]
    assert "failed\\: no \\| pair" in markdown(told)


@pytest.mark.parametrize("width", [40, 80, 132])
def test_no_figure_is_broken_however_narrow_the_terminal(width: int) -> None:
    rate, figures = (
        {"value": 0.6, "low": 0.268, "high": 0.86, "prompts": 10},
        {"judge_reward_after": 0.585, "tokens_sampled": 160.0},
    )
    figures |= {
        "people_prompts": 183,
        "people_share": 0.0,
        "own_share": 1.0,
        "mean_lag": 0.5,
        "renewed_share": 1.0,
        "models_in_memory": 1.0,
    }
    told = {
        "initial": {"judge_reward_before": 0.407}, "seeds": 1, "budget_tokens": None,
        "methods": [{"method": name, "failed": [], "win_rate": rate, "difference": rate, "figures": figures} for name in ("rso", "rejection-sampling")],
    }  # fmt: skip
    printed = io.StringIO()
    print_closing(Console(file=printed, width=width), told)
    shown = printed.getvalue().split()
    assert all(shown.count(word) >= 2 for word in ("60.0%", "[26.8%,", "86.0%]", "0.585", "160"))
    assert shown.count("rejection-sampling") == 2
    assert {"rso", "rejection-sampling", "reward", "tokens"} <= set(shown)

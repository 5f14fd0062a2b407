"""Figures for a reader: sides together, digits, shares, intervals, what is missing and why."""

from typing import Any

from dapflow.flows.display.figures import laid_out, lines_of, value_of


def row(
    name: str,
    value: float | None,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    return {"name": name, "value": value, "low": low, "high": high, "unit": unit, "note": note}


def test_a_before_and_its_after_stand_on_one_line_and_everything_else_alone() -> None:
    rows = [
        row("length_before", 41.94, "tokens"), row("win_rate", 0.5, "share of prompts", 0.4, 0.6), row("length_after", 32.19, "tokens"),
        row("novelty_after", 3.0),
    ]  # fmt: skip
    told = [(line.name, line.cells, line.unit) for line in laid_out(rows)]
    assert told == [
        ("length", ("41.9", "32.2"), "tokens"),
        ("win rate", ("", "50.0% [40.0%, 60.0%]"), "of prompts"),
        ("novelty after", ("", "3"), ""),
    ]


def test_numbers_have_the_digits_that_say_something() -> None:
    units = {
        "share of pairs": "12.3%",
        "share of the length before": "12.3%",
        "probability": "12.3%",
        "usd": "$0.1234",
        "nats": "0.123",
    }
    assert {unit: value_of(row("x", 0.1234, unit)) for unit in units} == units
    assert [value_of(row("x", value)) for value in (12345.6, 1234.0, 12.345, -0.0621, None, float("inf"))] == [
        "12,346", "1,234", "12.3", "-0.0621", "not measured", "no bound",
    ]  # fmt: skip
    assert value_of(row("length_growth", 1.5, "share of the length before")) == "150.0%"


def test_the_terminal_shows_the_main_ones_and_what_is_missing_for_one_reason_on_one_line() -> None:
    rows = [
        row("win_rate", 0.5), row("surprise", 7.0), row("reward_before", None, note="no scores"), row("reward_after", 1.0),
        row("judge_reward_before", -1.1), row("judge_reward_after", -0.621), row("kl_to_initial", 2.13, "nats", 1.61, 2.86),
        row("win_rate_gap", None, note="no scores"),
    ]  # fmt: skip
    assert [" ".join(line.split()) for line in lines_of(rows)] == [
        "reward (evaluation judge) -1.1 -> -0.621",
        "KL to the initial policy 2.13 [1.61, 2.86]",
        "not measured: reward (training judge), training judge's win rate less this one's: no scores",
    ]

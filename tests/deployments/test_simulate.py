"""The simulation against arithmetic that can be done by hand, and its rates against runs that are
known.
"""

import math
from typing import Any

import pytest

from dapflow.deployments.simulate import Machines, Rates, calibrate, decode_seconds, simulate

RATES = Rates(
    decode_step=0.02,
    decode_row=0.001,
    scored_token=0.001,
    trained_token=0.004,
    rows=2,
    written_row=0.0,
)


def step(
    name: str,
    rows: int = 1,
    calls: int = 0,
    cached: bool = False,
    shards: bool = False,
    **tokens: int,
) -> dict[str, Any]:
    """A step as `dapflow plan` tells it."""
    return {
        "name": name,
        "step": name,
        "version": f"x@{name}",
        "rows": rows,
        "calls": calls,
        "cached": cached,
        "shards": shards,
        "tokens": tokens,
    }


def test_a_row_that_ends_makes_room_for_the_next_and_the_last_decodes_alone() -> None:
    # rows of 5 and 3 tokens begin; after 3 steps the third, of 4, takes the place: 3 steps of two
    # rows, 2 of two, 2 of one
    assert decode_seconds([5, 3, 4], RATES) == pytest.approx(
        5 * (0.02 + 0.002) + 2 * (0.02 + 0.001)
    )


def test_steps_follow_one_another_and_cached_ones_take_nothing() -> None:
    told = simulate(
        [step("judge", scored=3_000), step("again", scored=3_000, cached=True)], RATES, Machines()
    )
    assert [(one.seconds, one.busy) for one in told] == [
        (pytest.approx(3.0), pytest.approx(1.0)),
        (0.0, 0.0),
    ]


def test_more_samplers_share_the_rows_and_one_scorer_stays_one() -> None:
    steps = [step("sample", rows=64, sampled=64 * 10), step("judge", rows=64, scored=640)]
    one, eight = (simulate(steps, RATES, Machines(samplers=count)) for count in (1, 8))
    # 32 pairs of rows, 10 tokens each, at 22 ms: 7.04 s; eight have 4 pairs each
    assert [one[0].seconds, eight[0].seconds] == [pytest.approx(7.04), pytest.approx(7.04 / 8)]
    assert one[1].seconds == eight[1].seconds == pytest.approx(0.64)
    assert eight[1].busy == pytest.approx(1 / 8)


def test_what_is_not_followed_row_by_row_passes_at_the_same_rate() -> None:
    few, many = (
        simulate([step("sample", rows=rows, sampled=rows * 10)], RATES, Machines())[0].seconds
        for rows in (2_048, 204_800)
    )
    assert many == pytest.approx(100 * few)


def test_writers_wait_for_the_lake() -> None:
    slow = Rates(
        decode_step=0.0, decode_row=0.0, scored_token=0.0, trained_token=0.0, written_row=0.01
    )
    assert simulate([step("sample", rows=80, sampled=80)], slow, Machines(samplers=8))[
        0
    ].seconds == pytest.approx(0.8)


def test_calls_take_their_number_times_latency_over_how_many_are_under_way() -> None:
    rates = Rates(
        decode_step=0.0,
        decode_row=0.0,
        scored_token=0.0,
        trained_token=0.0,
        written_row=0.0,
        call=1.0,
        concurrency=64,
    )
    took = simulate([step("judge", calls=6_400)], rates, Machines())[0].seconds
    assert (
        100.0 < took < 110.0
    )  # never less than 6,400 / 64, and a few seconds until the last is back


def test_verdicts_are_shared_out_and_other_scores_are_not() -> None:
    steps = [step("judge", scored=10_000, shards=True), step("kl", scored=10_000)]
    alone, shared = (simulate(steps, RATES, Machines(scorers=scorers)) for scorers in (1, 4))
    assert shared[0].seconds == pytest.approx(alone[0].seconds / 4)
    assert shared[1].seconds == alone[1].seconds == alone[0].seconds


def test_training_is_shared_and_waits_for_the_sum_of_gradients() -> None:
    machines = Machines(trainers=4, batch_tokens=1_000, reduce=0.5)
    took = simulate([step("train", trained=10_000)], RATES, machines)[0].seconds
    # reference 10 s on one device; 10 steps of 250 tokens a device at 4 ms, and 0.5 s each to sum
    assert took == pytest.approx(10 + 10 * (1.0 + 0.5))


def test_rates_that_made_a_run_are_found_from_it() -> None:
    true = Rates(
        decode_step=0.05, decode_row=0.004, scored_token=0.002, trained_token=0.02, written_row=0.0,
        starts={"sample": 1.5, "judge": 2.0, "load": 0.25, "train": 0.0}, scored_tokens={"judge": 0.002},
    )  # fmt: skip
    steps = [
        step(name, rows=rows, sampled=rows * 16) | {"step": "sample"}
        for name, rows in (("a", 128), ("b", 8), ("c", 32), ("d", 70))
    ]
    steps += [
        step(name, scored=tokens) | {"step": "judge"} for name, tokens in (("e", 9_000), ("f", 500))
    ]
    steps += [step("train", trained=4_000), step("load")]
    seconds = {
        one["version"]: told.seconds
        for one, told in zip(steps, simulate(steps, true, Machines()), strict=True)
    }
    lengths = {one["version"]: [16] * one["rows"] for one in steps if "sampled" in one["tokens"]}
    found = calibrate(
        steps,
        seconds,
        lengths,
        Rates(decode_step=0, decode_row=0, scored_token=0, trained_token=0, written_row=0.0),
    )
    assert (found.decode_step, found.decode_row, found.trained_token) == (
        pytest.approx(0.05),
        pytest.approx(0.004),
        pytest.approx(0.02),
    )
    assert found.starts == {name: pytest.approx(value) for name, value in true.starts.items()}
    other = [
        step("sample", rows=100, sampled=1_600),
        step("judge", scored=2_500),
        step("train", trained=700),
        step("load"),
    ]
    assert math.isclose(
        *(
            sum(one.seconds for one in simulate(other, rates, Machines()))
            for rates in (found, true)
        ),
        rel_tol=1e-6,
    )

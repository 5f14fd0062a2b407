"""Win rates: what must not change them (order, sides), what must (quality), what must not fool them
(length), and how sure they are.
"""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from dapflow.tasks.evaluation.winrate.comparisons import Comparison, Comparisons
from dapflow.tasks.evaluation.winrate.rates import Result, win_rates

RATES = ("win_rate", "length_controlled_win_rate")
ALL = (
    "win_rate",
    "win_rate_low",
    "win_rate_high",
    "length_controlled_win_rate",
    "length_controlled_low",
    "length_controlled_high",
)


def judged(
    prompts: int,
    *,
    quality: float = 0.0,
    love: float = 0.0,
    longer: float = 0.0,
    seed: int = 0,
    name: str = "output",
) -> list[Comparison]:
    """One system's rows. The judge's log-odds: the quality, and `love` for each 400 characters
    more; `longer` characters on average.
    """
    rng = np.random.default_rng(seed)
    delta = np.round(rng.normal(longer, 500, prompts)).astype(int)
    odds = expit(quality + love * delta / 400)
    preference = rng.beta(2 * odds, 2 * (1 - odds))
    return [
        Comparison(
            system=name,
            instruction=f"prompt {n}",
            answer=n,
            delta=int(delta[n]),
            preference=float(preference[n]),
        )
        for n in range(prompts)
    ]


def rates(*systems: list[Comparison], difficulty: bool = True) -> Result:
    return win_rates(
        Comparisons(rows=[row for rows in systems for row in rows]),
        difficulty=difficulty,
        samples=300,
    )


def figures(result: Result, name: str = "output") -> list[float]:
    return [
        value for value in (vars(result.systems[name])[one] for one in ALL) if value is not None
    ]


TWO = (
    judged(120, quality=-1, love=1, longer=-300, name="a"),
    judged(120, quality=0.5, love=1, longer=200, seed=1, name="b"),
)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [*TWO[0], *TWO[1]]
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    assert rates(rows) == rates(shuffled)  # to the last bit


@pytest.mark.parametrize("systems", [TWO[:1], TWO])
def test_swapping_the_sides_mirrors_every_figure(systems: tuple[list[Comparison], ...]) -> None:
    swapped = [
        [replace(row, delta=-row.delta, preference=1 - row.preference) for row in rows]
        for rows in systems
    ]
    there, back = rates(*systems), rates(*swapped)
    for name in there.systems:
        rate, low, high, controlled, controlled_low, controlled_high = figures(there, name)
        mirrored = [100 - one for one in (rate, high, low, controlled)]
        assert figures(back, name)[:4] == pytest.approx(mirrored, abs=1e-3)
        # the random part of the length-controlled interval is not mirrored: the ends agree as far
        # as 300 samples tell
        assert figures(back, name)[4:] == pytest.approx(
            [100 - controlled_high, 100 - controlled_low], abs=2.5
        )


def test_a_model_against_itself_wins_half_whoever_else_is_there() -> None:
    itself = [replace(row, system="itself", delta=0, preference=0.5) for row in TWO[0]]
    # of 120 prompts: 50 * 0.025^(1/120) = 48.5
    assert figures(rates(itself), "itself") == pytest.approx(
        [50, 48.5, 51.5, 50, 48.5, 51.5], abs=0.05
    )
    assert figures(rates(itself, *TWO), "itself")[:4] == pytest.approx(
        [50, 48.5, 51.5, 50], abs=0.2
    )


def test_a_better_system_has_higher_rates() -> None:
    found = [
        rates(judged(300, quality=quality, love=1, longer=200))
        for quality in (-2, -1, -0.3, 0, 0.3, 1, 2)
    ]
    for rate in RATES:
        values = [vars(one.systems["output"])[rate] for one in found]
        assert values == sorted(values) and len(set(values)) == len(values)


def test_of_several_systems_the_better_one_has_the_higher_rates() -> None:
    names = ("a", "b", "c", "d")
    found = rates(
        *(
            judged(200, quality=n - 1.5, love=1, longer=200 * n, seed=n, name=name)
            for n, name in enumerate(names)
        )
    )
    for rate in RATES:
        assert sorted(names, key=lambda name: vars(found.systems[name])[rate]) == list(names)


@pytest.mark.parametrize("longer", [-300, 300])
def test_a_judge_that_loves_length_moves_the_raw_rate_and_not_the_length_controlled_one(
    longer: float,
) -> None:
    one = rates(judged(805, love=1, longer=longer)).systems["output"]
    assert abs(one.win_rate - 50) > 10
    assert one.length_controlled_win_rate == pytest.approx(50, abs=3)
    plain = rates(judged(805, love=0, longer=longer)).systems["output"]
    assert (plain.win_rate, plain.length_controlled_win_rate) == (
        pytest.approx(50, abs=3),
        pytest.approx(50, abs=4),
    )


def test_several_systems_share_what_the_judge_loves() -> None:
    systems = [
        judged(200, quality=-1, love=1, longer=longer, seed=longer, name=str(longer))
        for longer in (0, 200, 400, 600)
    ]
    for difficulty in (True, False):
        found = rates(*systems, difficulty=difficulty).systems.values()
        raw, controlled = ([vars(one)[rate] for one in found] for rate in RATES)
        assert max(raw) - min(raw) > 20
        assert max(controlled) - min(controlled) < 8


def test_several_seeds_of_a_prompt_are_drawn_together() -> None:
    rows = judged(100)
    once, thrice = (
        rates(rows).systems["output"],
        rates([row for row in rows for _ in range(3)]).systems["output"],
    )
    assert (thrice.win_rate, thrice.n, thrice.prompts) == (pytest.approx(once.win_rate), 300, 100)
    assert (thrice.win_rate_low, thrice.win_rate_high) == pytest.approx(
        (once.win_rate_low, once.win_rate_high)
    )  # no surer for repeating it


@pytest.mark.parametrize(
    ("rows", "expected", "sentence"),
    [
        (judged(1), [0.0, 100.0], "one prompt says nothing about others"),
        (judged(4), None, "needs 5 prompts or more to tell length from quality, and there are 4"),
        (
            [replace(row, preference=1.0) for row in judged(40)],
            [91.2, 100.0],
            "every preference is 1, so length makes no difference",
        ),
        (
            [replace(row, preference=0.0) for row in judged(40)],
            [0.0, 8.8],
            "every preference is 0, so length makes no difference",
        ),
        (
            [replace(row, delta=70) for row in judged(40)],
            None,
            "the same length, so length and quality are one",
        ),
    ],
)
def test_what_cannot_be_had_is_none_and_a_sentence(
    rows: list[Comparison], expected: list[float] | None, sentence: str
) -> None:
    found = rates(rows)
    one = found.systems["output"]
    assert (
        one.length_controlled_win_rate,
        one.length_controlled_low,
        one.length_controlled_high,
    ) == (None, None, None)
    assert any(sentence in note for note in one.notes) and any(
        sentence in note for note in found.notes
    )
    if expected:  # of 40 wins the interval begins at 0.025^(1/40)
        assert [one.win_rate_low, one.win_rate_high] == pytest.approx(expected, abs=0.1)


def test_all_ties_are_fifty_and_said() -> None:
    found = rates([replace(row, preference=0.5) for row in judged(40)])
    assert figures(found)[:4] == pytest.approx([50, 45.6, 54.4, 50], abs=0.05)  # 50 * 0.025^(1/40)
    assert "every preference is a tie" in found.notes[0]


def test_one_odd_system_does_not_spoil_the_others() -> None:
    odd = [replace(row, system="odd", preference=1.0) for row in TWO[0]]
    few = [replace(row, system="few") for row in TWO[0][:3]]
    found = rates(*TWO, odd, few)
    for name in ("a", "b"):
        assert figures(found, name)[:4] == pytest.approx(figures(rates(*TWO), name)[:4])
    assert found.systems["odd"].length_controlled_win_rate is None
    assert "few: judged on 3 of the 120 prompts." in found.notes


def test_advice_is_about_the_prompts_of_the_system_that_is_least_sure() -> None:
    few = [
        replace(row, system="few", instruction=f"of few {n}") for n, row in enumerate(judged(10))
    ]
    found = rates(judged(400), few)
    assert found.half_width == pytest.approx(
        (found.systems["few"].win_rate_high - found.systems["few"].win_rate_low) / 2
    )
    assert found.advice.startswith("10 prompts give ±")


def test_advice_goes_by_how_much_the_prompts_spread() -> None:
    # 60 wins, 20 losses: variance 80 / 79 * 0.75 * 0.25 = 0.18987; ±5 points take 1.96^2 * 0.18987
    # / 0.05^2 = 291.7 prompts
    whole = [replace(row, preference=float(n < 60)) for n, row in enumerate(judged(80))]
    assert "±5.0 would take about 292 that spread like these." in rates(whole).advice
    assert (
        "about 292 that" in rates([row for row in whole for _ in range(3)]).advice
    )  # more rows of a prompt say nothing more
    # between 0.625 and 0.875: as sure with a sixteenth of the variance, and 80 give ±2.8
    soft = [replace(row, preference=0.625 + row.preference / 4) for row in whole]
    assert (
        rates(soft).advice.startswith("80 prompts give ±2.")
        and "±2.0 would take about 114 that" in rates(soft).advice
    )


def test_two_prompts_that_agree_are_not_a_result() -> None:
    rows = [
        replace(row, preference=preference)
        for row, preference in zip(judged(2), (0.89, 0.96), strict=True)
    ]
    assert figures(rates(rows))[1] < 50  # the bootstrap alone says 89 to 96


@pytest.mark.parametrize("prompts", [5, 6, 10])
@pytest.mark.parametrize("losses", [1, 4])
def test_few_and_nearly_one_sided_rows_give_numbers_within_bounds(
    prompts: int, losses: int
) -> None:
    rows = [replace(row, preference=float(n >= losses)) for n, row in enumerate(judged(prompts))]
    rate, low, high, controlled, controlled_low, controlled_high = figures(rates(rows))
    assert 0 <= low <= rate <= high <= 100
    assert 0 <= controlled_low <= controlled_high <= 100 and 0 <= controlled <= 100


def test_one_answer_for_everything_is_suspect() -> None:
    same = [
        replace(row, system="same", answer=7, preference=0.9 * row.preference + 0.1)
        for row in TWO[0]
    ]
    found = rates(same, *TWO)
    assert [one.suspect for one in found.systems.values()] == [False, False, True]
    assert any(
        "same: gives 100% of the prompts one and the same answer" in note for note in found.notes
    )


def test_answers_that_are_all_longer_are_told_to_be_beyond_what_was_seen() -> None:
    found = rates([replace(row, delta=abs(row.delta) + 1) for row in judged(50)])
    assert any("100.0% of its answers are longer" in note for note in found.notes)
    won = rates([replace(row, delta=abs(row.delta) + 1, preference=1.0) for row in judged(50)])
    assert not any("largely guessed" in note for note in won.notes)  # nothing was guessed


def test_the_length_controlled_interval_covers() -> None:
    # 30 systems that are as good as the baseline, and 300 characters longer: 50 should be in 28.5
    # of the intervals, give or take 1.2; tests/benchmarks/quality/winrate.py has larger simulations
    covered = [
        rates(judged(80, love=1, longer=300, seed=seed)).systems["output"] for seed in range(30)
    ]
    inside = sum(
        (one.length_controlled_low or 0) <= 50 <= (one.length_controlled_high or 0)
        for one in covered
    )
    assert inside >= 26


def test_win_rates_need_neither_torch_nor_prefect() -> None:
    program = "import sys, dapflow.tasks.evaluation.winrate.rates, dapflow.flows.cli.winrate; sys.exit(any(name in sys.modules for name in ('torch', 'prefect')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""The gate: each threshold against its figure; what was not measured closes it where it is asked
for.
"""

import math

import pytest

from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.gate import Gate, gate_figures
from dapflow.flows.recipes.methods import RSO
from dapflow.storage import DatasetRef, Lake
from dapflow.storage.promotions import Figures
from tests.helpers.lakes import initial_policy, iteration

GOOD: Figures = {
    "win_rate": (0.6, 0.52, 0.68),
    "length_growth": (0.1, None, None),
    "invalid_rate": (0.0, 0.0, 0.05),
}


def closed(gate: Gate, figures: Figures) -> list[str]:
    return [str(check) for check in gate.check(figures) if not check.holds]


def test_a_policy_that_is_shown_to_be_better_and_not_much_longer_passes() -> None:
    assert closed(Gate(), GOOD) == []


@pytest.mark.parametrize(
    ("figure", "sentence"),
    [
        (
            {"win_rate": (0.6, 0.49, 0.7)},
            "win_rate (low end of its interval) is 0.49, at least 0.5 is asked",
        ),
        ({"length_growth": (0.51, None, None)}, "length_growth is 0.51, at most 0.5 is asked"),
        ({"invalid_rate": (0.2, 0.1, 0.3)}, "invalid_rate is 0.2, at most 0.1 is asked"),
        ({"length_growth": (math.nan, None, None)}, "length_growth is nan, at most 0.5 is asked"),
        (
            {"win_rate": (0.6, None, None)},
            "win_rate (low end of its interval) was not measured, at least 0.5 is asked",
        ),
    ],
)
def test_each_threshold_closes_it(figure: Figures, sentence: str) -> None:
    assert closed(Gate(), {**GOOD, **figure}) == [sentence]


def test_what_was_not_measured_closes_it_only_where_it_is_asked_for() -> None:
    assert closed(Gate(), {**GOOD}) == []
    assert closed(Gate(kl=10.0), GOOD) == ["kl_to_initial was not measured, at most 10 is asked"]
    assert closed(Gate(kl=10.0), {**GOOD, "kl_to_initial": (9.0, None, None)}) == []
    assert closed(Gate(win_rate_low=None, length_growth=None, invalid_rate=None), {}) == []


def test_any_figure_can_be_asked_for_by_name() -> None:
    gate = change(
        RSO,
        ["gate.most={toxicity: 0.01}", "gate.least={reward_after: 0}", "gate.win_rate_low=0.45"],
    ).gate
    figures = {**GOOD, "toxicity": (0.02, None, None), "reward_after": (1.0, None, None)}
    assert closed(gate, figures) == ["toxicity is 0.02, at most 0.01 is asked"]


def test_the_figures_of_an_evaluation_are_read_by_name(lake: Lake) -> None:
    made = iteration(lake, 1, initial_policy(lake))
    assert isinstance(made["metrics"], DatasetRef)
    assert gate_figures(lake, made["metrics"]) == {"win_rate": (0.6, None, None)}

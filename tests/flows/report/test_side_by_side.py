"""`dapflow report` of several runs: each has its name, and pictures show side by side what may be
compared.
"""

import re

from dapflow.flows.report.drawing.page import frontiers, page
from dapflow.flows.report.gather import gather
from dapflow.storage import Lake
from tests.helpers.evaluated import run
from tests.helpers.pages import Read


def test_two_runs_stand_side_by_side(measured: Lake) -> None:
    seen = " ".join(Read(page(gather(measured, ["better", "level"]))).seen)
    assert "Side by side" in seen
    assert re.search(
        r"Reward by \S+ \(policy model \w{8}\) against drift", seen
    )  # which labelled: the evaluation gave no reward
    assert "75.0%" in seen and "55.0%" in seen


def test_runs_of_one_recipe_are_told_apart_and_no_curve_joins_those_of_other_settings(
    lake: Lake,
) -> None:
    drift = {"kl_to_initial": 0.25, "judge_reward_after": 1.0}
    run(lake, "one", more=drift)
    run(lake, "another", more=drift)
    run(lake, "warmer", more=drift, settings={"loss": {"name": "sigmoid_norm", "beta": 0.2}})

    def named(*names: str, key: str) -> list[str]:
        return [one[key] for night in gather(lake, names) for one in night["iterations"]]

    assert named("one", "warmer", key="label") == ["rso 1 (one)", "rso 1 (warmer)"]
    assert named("warmer", key="label") == ["rso 1"]
    assert named("one", "another", key="series") == [
        "rso",
        "rso",
    ]  # such as two nights, of which the second went on from the first
    [(_, picture)] = frontiers(
        [one for night in gather(lake, ["one", "warmer"]) for one in night["iterations"]]
    )
    assert "rso (one)" in picture and "rso (warmer)" in picture


def test_rewards_stand_in_one_picture_where_one_judge_gave_them(measured: Lake) -> None:
    ones = [one for night in gather(measured, ["better", "level"]) for one in night["iterations"]]
    [(title, picture)] = frontiers(ones)
    assert "reward after, judge&#39;s score" in picture
    for number, one in enumerate(ones):
        one["metrics"].append({"name": "judge_reward_after", "value": 0.5 + number})
    [(told, _)] = frontiers(ones)
    assert told != title and told.startswith(
        "Reward by independent (reward model"
    )  # the evaluation's judge, where it scores
    for judge in ones[0]["judges"]:
        judge["name"] = "another"
    assert frontiers(ones) == []

"""Soft labels: pairs carry the judge's probability where its scores are log-odds, the policy learns
from it, and a judge without one is refused before anything runs.
"""

import math
from pathlib import Path

import pytest

from dapflow.flows.align import chosen
from dapflow.flows.recipes.methods import RECIPES
from dapflow.storage import Lake, UserError
from dapflow.tasks.judging.kinds import KINDS, kind
from dapflow.tasks.judging.spec import JudgeSpec
from tests.helpers.toy import quick

SOFT = "loss.soft_labels=true"


def test_each_kind_says_what_its_scores_are_in() -> None:
    units = {name: kind(name).unit for name in KINDS}
    assert {name for name, unit in units.items() if unit == "log-odds"} == {
        "reward-model",
        "lake-model",
    }


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("recipe", ["sft-sample-rank", "oaif"])
def test_soft_labels_change_what_a_policy_learns_from_a_reward_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    lake_at = tmp_path / "lake"
    for settings in ((), (SOFT,)):
        rounds = ("rounds.count=2", "rounds.prompts=4") if recipe == "oaif" else ()
        code, _, err = quick(
            "run", lake_at, capsys, "judge=reward-model", *rounds, *settings, recipe=recipe
        )
        assert code == 0, err
    with Lake(lake_at) as lake:
        pairs = lake.rows("SELECT * FROM pairs WHERE dropped IS NULL AND chosen_id IS NOT NULL")
        hard, soft = lake.rows(
            "SELECT DISTINCT digest FROM models WHERE role = 'policy' AND parent IS NOT NULL"
        )
    assert hard != soft
    assert pairs
    for pair in pairs:
        assert pair["margin"] > 0
        assert pair["probability"] == pytest.approx(1 / (1 + math.exp(-pair["margin"])))


@pytest.mark.parametrize(
    ("recipe", "settings", "judge"),
    [
        ("rso", ("judge=shorter",), "shorter"),
        ("rso", ("judge=llm", "judge.endpoint.model=m", "judge.mode=ten"), "m"),
        ("rso", ("judge=policy",), "itself, additive-v1"),
        ("self-rewarding", ("judge.mode=pairwise", "judge.fallback=shorter"), "shorter"),
        (
            "rso",
            ("judge=composite", "judge.members={brief: shorter, good: reward-model}"),
            "sum of brief, good",
        ),
    ],
)
def test_a_judge_whose_scores_are_no_log_odds_is_refused_with_soft_labels(
    recipe: str, settings: tuple[str, ...], judge: str
) -> None:
    more = ("pairing.rule=first-round",) if recipe == "self-rewarding" else ()
    with pytest.raises(UserError, match=f"scores of the judge {judge} are not log-odds") as error:
        chosen(recipe, (*settings, *more, SOFT), toy=False)
    assert str(error.value).count(". ") == 0  # in one sentence
    chosen(recipe, (*settings, *more), toy=False)


def test_peoples_pairs_are_refused_with_soft_labels() -> None:
    for settings in ((), ("judge=reward-model",)):  # which labels nothing here
        with pytest.raises(UserError, match="people's pairs do not: set"):
            chosen("dpo", (*settings, SOFT), toy=False)


def test_judges_that_know_how_sure_they_are_are_taken_with_soft_labels() -> None:
    chosen(
        "rso", (SOFT, "reward.form=pairwise", "reward.parameters=lora", "reward.layers=0"), False
    )
    chosen("rso", (SOFT, "judge=llm", "judge.endpoint.model=m", "acceptance.rule=all"), False)
    for recipe in RECIPES.values():
        learns = recipe.trains_on == "pairs" and recipe.loss.name == "sigmoid_norm"
        judge: JudgeSpec | None = recipe.judge
        if learns and judge is not None and judge.unit == "log-odds":
            assert chosen(recipe.name, (SOFT,), toy=False).soft_labels

"""`dapflow policies`, `promote`, `rollback`, and nights one after the other on a toy model."""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.night import RecipeName, night
from dapflow.storage import Lake
from dapflow.storage.promotions import Decision, decide, line_from, line_of
from tests.helpers.lakes import iterated_lake, iteration
from tests.helpers.toy import BY_LENGTH, dapflow

OPEN = ("gate.win_rate_low=0", "gate.invalid_rate=1", "gate.length_growth=100")


def test_promote_and_roll_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--lake", str(tmp_path / "lake"))
    made = iterated_lake(tmp_path / "lake")
    with Lake(tmp_path / "lake") as lake:
        first, second = (
            made["trained"].version,
            iteration(lake, 2, made["trained"])["trained"].version,
        )
    assert "No night has decided" in dapflow("policies", *where, capsys=capsys)[1]
    for version in (first, second):
        assert (
            dapflow("promote", version, *where, capsys=capsys)[1]
            == f"The promoted policy is models@{version}.\n"
        )
    assert first in dapflow("rollback", "--reason", "too talkative", *where, capsys=capsys)[1]
    assert "the one that the line began with" in dapflow("rollback", *where, capsys=capsys)[1]
    code, _, err = dapflow("rollback", *where, capsys=capsys)
    assert (code, "nothing to go back to" in err) == (2, True)
    rows = json.loads(dapflow("policies", "--json", *where, capsys=capsys)[1])
    assert [(row["action"], row["policy"]) for row in rows] == [
        ("promote by hand", first), ("promote by hand", second), ("roll back", first), ("roll back", None),
    ]  # fmt: skip
    assert "too talkative" in dapflow("policies", *where, capsys=capsys)[1].replace("\n", " ")
    code, _, err = dapflow("promote", made["pairs"].version, *where, capsys=capsys)
    assert (code, "is not a policy" in err) == (2, True)


def test_a_narrow_terminal_cuts_nothing_of_a_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    figures = dict.fromkeys(
        ("win_rate", "length_growth", "invalid_rate", "judge_agreement", "kl_to_initial"),
        (0.7, 0.338, 0.914),
    )
    first = iterated_lake(tmp_path / "lake")["trained"]
    with Lake(tmp_path / "lake") as lake:
        line = line_of(lake, line_from(lake, first))
        decide(
            lake,
            line,
            Decision(
                action="promote",
                candidate=first.version,
                reason="better",
                recipe="rso-hinge",
                figures=figures,
            ),
        )
    said = dapflow("policies", "--lake", str(tmp_path / "lake"), capsys=capsys)[1].split("\n", 1)[1]
    assert f"  rso-hinge  {first.version[:8]} promote: better" in said
    assert " ".join(said.split()).endswith("kl to initial 0.7 [0.338, 0.914]")


@pytest.fixture(scope="module")
def nights(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> tuple[str, list[dict[str, Any]]]:
    """A lake, and what five nights in it have decided: one whose prompts teach nothing, one whose
    gate stays closed, two that learn from all samples so far, and one on top of them.
    """
    where = str(tmp_path_factory.mktemp("nights") / "lake")
    answers, pairs = ("rejection-sampling", "sweep.temperatures=[]"), ("rso", "sampling.n=6")
    return where, [
        night(RecipeName(recipe), (*BY_LENGTH, *settings), True, where)
        for recipe, *settings in (
            (*pairs, *OPEN, "judge=keywords:nowhere-to-be-read"),
            (*pairs, "gate.kl=0.0", "gate.most={x: 0}"),
            (*answers, *OPEN),
            (*answers, *OPEN),
            (*pairs, *OPEN),
        )
    ]


def test_a_night_whose_prompts_teach_nothing_keeps_the_policy_and_leaves_the_next_prompts_to_the_next(
    nights: tuple[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    where, (untaught, following, *_) = nights
    assert (
        untaught["action"],
        untaught["policy"],
        untaught["candidate"],
        untaught["slice"],
    ) == ("keep", None, "", 1)
    assert untaught["reason"].startswith("No pair is left to train on: ")
    assert (following["previous"], following["slice"]) == (None, 2)
    assert "none keep: No pair is left" in dapflow("policies", "--lake", where, capsys=capsys)[1]


def test_each_night_starts_from_the_promoted_policy_and_takes_the_next_prompts(
    nights: tuple[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    where, (_, closed, passed, before, on_top) = nights
    assert (closed["action"], closed["policy"]) == ("keep", None)
    assert "x was not measured, at most 0 is asked" in closed["reason"]
    assert (passed["action"], passed["slice"], passed["previous"]) == ("promote", 3, None)
    assert (on_top["action"], on_top["slice"], on_top["previous"]) == (
        "promote",
        5,
        before["candidate"],
    )
    assert {"win_rate", "length_growth", "invalid_rate", "judge_agreement"} <= on_top[
        "figures"
    ].keys()
    said = dapflow("promote", "newest", "--lake", where, capsys=capsys)[1]
    assert said.endswith(f"The promoted policy is models@{on_top['candidate']}.\n")
    with Lake(where) as lake:
        parents = [
            lake.model(lake.ref(row["candidate"]))["parent"] for row in (closed, passed, on_top)
        ]  # type: ignore[arg-type]
        assert parents[0] == parents[1] != parents[2] == before["candidate"]
        assert lake.ref("promoted").version == lake.ref("newest").version == on_top["candidate"]
        prompts = lake.rows("SELECT prompt FROM prompts WHERE split = 'train'")
        assert len({row["prompt"] for row in prompts}) == 20  # five slices of four
        artifacts = lake.rows("SELECT state FROM runs")
        assert [row["state"] for row in artifacts] == ["done"] * 5


def test_a_recipe_that_learns_from_all_samples_so_far_has_those_of_the_nights_before(
    nights: tuple[str, list[dict[str, Any]]],
) -> None:
    where, (*_, first, second, _) = nights
    assert [row["action"] for row in (first, second)] == ["promote"] * 2
    with Lake(where, read_only=True) as lake:
        parents = lake.catalogue().parents
        pools = [
            {
                role: ref
                for role, ref in parents[parents[row["policy"]]["answers"]].items()
                if role != "policy"
            }
            for row in (first, second)
        ]
    assert [len(pool) for pool in pools] == [
        3,
        6,
    ]  # prompts, completions and verdicts of each night
    assert all(
        pools[1][role] == version for role, version in pools[0].items() if role != "verdicts[0]"
    )

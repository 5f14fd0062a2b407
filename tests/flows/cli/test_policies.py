"""`dapflow policies`, `promote`, `rollback`, and nights one after the other on a toy model."""

import json
from pathlib import Path

import pytest

from dapflow.flows.night import RecipeName, night
from dapflow.storage import Lake
from dapflow.storage.promotions import Decision, decide, line_from, line_of
from tests.helpers.lakes import initial_policy, iteration
from tests.helpers.toy import BY_LENGTH, dapflow

OPEN = ("gate.win_rate_low=0", "gate.invalid_rate=1", "gate.length_growth=100")


def test_promote_and_roll_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--lake", str(tmp_path / "lake"))
    with Lake(tmp_path / "lake") as lake:
        made = iteration(lake, 1, initial_policy(lake))
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
    with Lake(tmp_path) as lake:
        first = iteration(lake, 1, initial_policy(lake))["trained"]
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
    said = dapflow("policies", "--lake", str(tmp_path), capsys=capsys)[1].split("\n", 1)[1]
    assert f"  rso-hinge  {first.version[:8]} promote: better" in said
    assert " ".join(said.split()).endswith("kl to initial 0.7 [0.338, 0.914]")


@pytest.mark.usefixtures("prefect_server")
def test_a_night_whose_prompts_teach_nothing_keeps_the_policy_and_leaves_the_next_prompts_to_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "lake")
    taught = [
        night(RecipeName("sft-sample-rank"), (*BY_LENGTH, *OPEN, *judge), True, where)
        for judge in (("judge=keywords:nowhere-to-be-read",), ())
    ]
    assert (
        taught[0]["action"],
        taught[0]["policy"],
        taught[0]["candidate"],
        taught[0]["slice"],
    ) == ("keep", None, "", 1)
    assert taught[0]["reason"].startswith("No pair is left to train on: ")
    assert (taught[1]["action"], taught[1]["previous"], taught[1]["slice"]) == ("promote", None, 2)
    with Lake(where, read_only=True) as lake:
        assert lake.rows("SELECT state FROM runs") == [{"state": "done"}] * 2
    assert "none keep: No pair is left" in dapflow("policies", "--lake", where, capsys=capsys)[1]


@pytest.mark.usefixtures("prefect_server")
def test_each_night_starts_from_the_promoted_policy_and_takes_the_next_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "lake")
    closed, passed, on_top = (
        night(RecipeName("rso"), (*BY_LENGTH, "sampling.n=6", *gate), True, where)
        for gate in (("gate.kl=0.0", "gate.most={x: 0}"), OPEN, OPEN)
    )
    assert (closed["action"], closed["policy"]) == ("keep", None)
    assert "x was not measured, at most 0 is asked" in closed["reason"]
    assert (passed["action"], passed["slice"], passed["previous"]) == ("promote", 2, None)
    assert (on_top["action"], on_top["slice"], on_top["previous"]) == (
        "promote",
        3,
        passed["candidate"],
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
        assert parents[0] == parents[1] != parents[2] == passed["candidate"]
        assert lake.ref("promoted").version == lake.ref("newest").version == on_top["candidate"]
        prompts = lake.rows("SELECT prompt FROM prompts WHERE split = 'train'")
        assert len({row["prompt"] for row in prompts}) == 12  # three slices of four
        artifacts = lake.rows("SELECT state FROM runs")
        assert [row["state"] for row in artifacts] == ["done"] * 3


@pytest.mark.usefixtures("prefect_server")
def test_a_recipe_that_learns_from_all_samples_so_far_has_those_of_the_nights_before(
    tmp_path: Path,
) -> None:
    where = str(tmp_path / "lake")
    nights = [
        night(
            RecipeName("rejection-sampling"),
            (*BY_LENGTH, *OPEN, "sweep.temperatures=[]"),
            True,
            where,
        )
        for _ in range(2)
    ]
    assert [one["action"] for one in nights] == ["promote"] * 2
    with Lake(where, read_only=True) as lake:
        parents = lake.catalogue().parents
        pools = [
            {
                role: ref
                for role, ref in parents[parents[one["policy"]]["answers"]].items()
                if role != "policy"
            }
            for one in nights
        ]
    assert [len(one) for one in pools] == [3, 6]  # prompts, completions and verdicts of each night
    assert all(
        pools[1][role] == version for role, version in pools[0].items() if role != "verdicts[0]"
    )

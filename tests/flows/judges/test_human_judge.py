"""`dapflow run` with a person as the judge: it waits for labels, from its own page or from `dapflow
label`, and asks nothing twice.
"""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.methods import RSO, SFT_SAMPLE_RANK
from dapflow.storage import Lake, UserError
from dapflow.tasks.judging.judges.human import Human
from tests.helpers.lakes import empty_lake
from tests.helpers.person import free_port, person
from tests.helpers.toy import QUICK, dapflow, quick, words


@pytest.mark.usefixtures("prefect_server")
def test_people_label_and_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    settings = (
        "judge=human",
        f"judge.port={port}",
        "evaluation.judge=human",
        f"evaluation.judge.port={port}",
        "evaluation.judge.labels=3",
    )
    code, plan, err = quick("plan", tmp_path, capsys, *settings)
    assert (code, plan["judge_calls"], plan["paid"]["calls"]) == (0, 4 + 6, 0), err
    with person(port) as somebody:
        code, result, err = quick("run", tmp_path, capsys, *settings)
        assert code == 0, err
        assert len(somebody.asked) == len({question["key"] for question in somebody.asked})
    [one] = result["iterations"]
    with Lake(tmp_path) as lake:
        labelled = lake.rows(
            "SELECT v.* FROM verdicts v JOIN pairs p USING (prompt_id) WHERE v.judge = 'person' AND v.other_id IS NOT NULL"
        )
        [compared] = lake.rows(
            "SELECT count(*) FILTER (outcome IN ('win', 'lose')) AS labels, count(*) FILTER (outcome = 'over_budget') AS over"
            " FROM verdicts WHERE version = (SELECT version FROM versions WHERE step = 'compare_policies' ORDER BY opened_at LIMIT 1)"
        )
        pairs = lake.rows("SELECT * FROM pairs WHERE dropped IS NULL AND source = 'compared'")
    assert all(
        (row["forward"] is None) != (row["backward"] is None)
        for row in labelled
        if row["outcome"] in ("win", "lose")
    )
    assert compared["labels"] == 3 and compared["over"] <= 3
    assert one["pairs"] > 0
    assert all(len(row["chosen"]) >= len(row["rejected"]) for row in pairs)
    assert one["judges"]["training"]["judge"] == "person"
    assert (one["judging"]["calls"], one["judging"]["usd"]) == (0, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_is_killed_while_a_person_labels_goes_on_with_exactly_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, lake = free_port(), tmp_path / "lake"
    settings = (
        "judge=human",
        f"judge.port={port}",
        "evaluation.judge=shorter",
        "prompts.per_iteration=8",
    )
    command = [
        sys.executable,
        "-m",
        "dapflow.flows.cli.main",
        "run",
        "sft-sample-rank",
        "--toy",
        "--lake",
        str(lake),
        *words(*QUICK, *settings),
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    with person(port, most=2) as somebody, (tmp_path / "said").open("w") as said:
        process = psutil.Popen(command, env=clean, stdout=said, stderr=said)
        while len(somebody.asked) < 2:
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.05)
        for one in (
            *process.children(recursive=True),
            process,
        ):  # with the Prefect server that it started
            one.kill()
        process.wait()
    before = {question["key"] for question in somebody.asked}
    with person(port) as somebody:
        code, result, err = quick("run", lake, capsys, *settings)
    assert code == 0, err
    after = [question["key"] for question in somebody.asked]
    with Lake(lake, read_only=True) as opened:
        wanted = {row["key"] for row in opened.rows("SELECT DISTINCT key FROM questions")}
        labels = opened.rows("SELECT key, label FROM labels")
        judged = opened.rows(
            "SELECT outcome FROM verdicts WHERE judge = 'person' AND (forward IS NOT NULL OR backward IS NOT NULL)"
        )
    assert len(before) == 2 < len(wanted)
    assert f"Label {len(wanted) - 2} pairs of answers" in " ".join(err.split())
    assert len(after) == len(set(after))
    assert (before & set(after), before | set(after)) == (set(), wanted)
    assert sorted(row["key"] for row in labels) == sorted(wanted)  # one each, none taken back
    assert len(judged) >= len(wanted)
    assert result["iterations"][0]["pairs"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_person_is_one_of_several_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    anna = f"judge.members.anna={{kind: human, person: anna, port: {port}}}"  # prefers the longer answer
    settings = (
        "judge=composite",
        "judge.rule=majority",
        anna,
        "judge.members.brief=shorter",
        "judge.members.other=on-topic",
        "evaluation.judge=shorter",
    )
    code, plan, err = quick("plan", tmp_path, capsys, *settings)
    assert code == 0, err
    assert "majority of anna, brief, other" in {step["name"] for step in plan["steps"]}
    with person(port) as somebody:
        code, result, err = quick("run", tmp_path, capsys, *settings)
    assert code == 0, err
    assert somebody.asked
    assert (
        result["iterations"][0]["judges"]["training"]["judge"] == "majority of anna, brief, other"
    )
    with Lake(tmp_path, read_only=True) as lake:
        matches = lake.rows(
            "SELECT * FROM verdicts WHERE judge LIKE 'majority%' AND outcome IN ('win', 'lose', 'tie') AND note IS NULL"
        )
        anna_said = {
            row["completion_id"]: row["score"]
            for row in lake.rows("SELECT * FROM verdicts WHERE judge = 'anna'")
        }
        scores = {
            (row["judge"], row["completion_id"]): row["score"]
            for row in lake.rows(
                "SELECT * FROM verdicts WHERE judge IN ('shorter', 'on-topic') AND other_id IS NULL"
            )
        }
    assert matches
    for row in matches:
        one, other = row["completion_id"], row["other_id"]
        votes = [anna_said[one]]
        for judge in ("shorter", "on-topic"):
            first, second = scores[judge, one], scores[judge, other]
            votes.append(0.5 + 0.5 * ((first > second) - (first < second)))
        assert row["score"] == pytest.approx(sum(votes) / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["judge=human", "judge.labels=0"], "`judge.labels` must be greater than or equal to 1"),
        (["judge=human", "judge.labls=3"], "did you mean `judge.labels`"),
    ],
)
def test_a_wrong_setting_of_a_person_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(SFT_SAMPLE_RANK, settings)


def test_settings_make_a_judge_a_person() -> None:
    changed = change(
        SFT_SAMPLE_RANK,
        [
            "judge=human",
            "judge.instruction=be brief",
            "evaluation.judge=human",
            "evaluation.judge.labels=9",
        ],
    )
    assert changed.judge == Human(instruction="be brief")
    assert changed.evaluation.judge == Human(labels=9)
    assert type(changed).model_validate(changed.model_dump(mode="json")) == changed
    with pytest.raises(
        UserError, match=r"gives no scores, without which there is no acceptance.rule=rso"
    ):
        change(RSO, ["judge=human"])


@pytest.mark.usefixtures("prefect_server")
def test_a_page_for_others_needs_a_password_and_a_lake_may_wait_for_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAPFLOW_LABEL_PASSWORD", raising=False)
    empty_lake(tmp_path)
    code, out, err = dapflow("label", "--lake", str(tmp_path), "--port", "0", capsys=capsys)
    assert (code, out.strip()) == (0, "Nothing waits for a person."), err
    code, _, err = dapflow("label", "--lake", str(tmp_path), "--host", "0.0.0.0", capsys=capsys)
    assert (code, "so it needs a password: set DAPFLOW_LABEL_PASSWORD" in err) == (2, True)
    settings = words("judge=human", "judge.host=0.0.0.0")
    code, _, err = dapflow(
        "run",
        "sft-sample-rank",
        "--toy",
        "--lake",
        str(tmp_path),
        *words(*QUICK),
        *settings,
        capsys=capsys,
    )
    assert (code, "so it needs a password: set DAPFLOW_LABEL_PASSWORD" in err) == (2, True)

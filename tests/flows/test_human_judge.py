"""`dapflow run` with a person as the judge: it waits for labels, from its own page or from `dapflow label`, and asks nothing twice."""

from pathlib import Path

import pytest

from flows.changes import change
from flows.recipes import RSO, SFT_SAMPLE_RANK
from storage import Lake, UserError
from tasks.judges.human import Human
from tests.flows.test_llm_judge import run, words
from tests.flows.test_run import SMALL, dapflow
from tests.tasks.judges.person import free_port, person


@pytest.mark.usefixtures("prefect_server")
def test_people_label_and_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    settings = ("judge=human", f"judge.port={port}", "evaluation.judge=human", f"evaluation.judge.port={port}", "evaluation.judge.labels=3")
    code, plan, err = run("plan", tmp_path, capsys, *settings)
    assert (code, plan["judge_calls"], plan["paid"]["calls"]) == (0, 4 + 6, 0), err
    with person(port) as somebody:
        code, result, err = run("run", tmp_path, capsys, *settings)
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
    assert all((row["forward"] is None) != (row["backward"] is None) for row in labelled if row["outcome"] in ("win", "lose"))
    assert compared["labels"] == 3 and compared["over"] <= 3
    assert one["pairs"] > 0
    assert all(len(row["chosen"]) >= len(row["rejected"]) for row in pairs)
    assert one["judges"]["training"]["judge"] == "person"
    assert (one["judging"]["calls"], one["judging"]["usd"]) == (0, 0.0)


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
    changed = change(SFT_SAMPLE_RANK, ["judge=human", "judge.instruction=be brief", "evaluation.judge.labels=9"])
    assert changed.judge == Human(instruction="be brief")
    assert changed.evaluation.judge == Human(labels=9)
    assert type(changed).model_validate(changed.model_dump(mode="json")) == changed
    with pytest.raises(UserError, match=r"gives no scores, without which there is no acceptance.rule=rso"):
        change(RSO, ["judge=human"])


@pytest.mark.usefixtures("prefect_server")
def test_a_page_for_others_needs_a_password_and_a_lake_may_wait_for_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAPFLOW_LABEL_PASSWORD", raising=False)
    Lake(tmp_path).close()
    code, out, err = dapflow("label", "--lake", str(tmp_path), "--port", "0", capsys=capsys)
    assert (code, out.strip()) == (0, "Nothing waits for a person."), err
    code, _, err = dapflow("label", "--lake", str(tmp_path), "--host", "0.0.0.0", capsys=capsys)
    assert (code, "so it needs a password: set DAPFLOW_LABEL_PASSWORD" in err) == (2, True)
    settings = words("judge=human", "judge.host=0.0.0.0")
    code, _, err = dapflow("run", "sft-sample-rank", "--toy", "--lake", str(tmp_path), *SMALL, *settings, capsys=capsys)
    assert (code, "so it needs a password: set DAPFLOW_LABEL_PASSWORD" in err) == (2, True)

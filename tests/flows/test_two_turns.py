"""Conversations of two turns: each policy is asked on after its own answer, both turns are judged
in pairs, and all of it is in the lake.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.storage import Lake
from dapflow.tasks.evaluation.two_turns import TURNS_FILE
from dapflow.tasks.prompts.sources import read_source
from tests.helpers.toy import BY_LENGTH, dapflow, words

TASKS = [
    {"prompt": f"Name a thing that is {word}.", "follow_up": f"And one that is not {word}?"}
    for word in ("red", "tall", "new", "wet")
]


def run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *settings: str,
    tasks: list[dict[str, str]] = TASKS,
) -> tuple[int, dict[str, Any], str]:
    file = tmp_path / "turns.jsonl"
    file.write_text("\n".join(map(json.dumps, tasks)))
    chosen = words(*BY_LENGTH, f"evaluation.two_turns.source={file}", *settings)
    code, out, err = dapflow(
        "run", "rso", "--toy", "--json", "--lake", str(tmp_path / "lake"), *chosen, capsys=capsys
    )
    return code, json.loads(out.splitlines()[-1])["iterations"][0] if code == 0 else {}, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose lake holds what runs of several judges have in common, once."""
    return tmp_path_factory.mktemp("two-turns")


@pytest.mark.usefixtures("prefect_server")
def test_each_policy_goes_on_from_its_own_answer_and_each_turn_is_scored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, one, err = run(folder, capsys)
    assert code == 0, err
    figures = {row["name"]: row for row in one["metrics"] if row["name"].startswith("turn_")}
    assert len(figures) == 8
    assert all(
        row["low"] <= row["value"] <= row["high"]
        for row in figures.values()
        if row["low"] is not None
    )
    for turn in (1, 2):
        gain, before, after = (
            figures[f"turn_{turn}_reward_{name}"] for name in ("gain", "before", "after")
        )
        assert None not in (gain["value"], before["value"], after["value"])
    with Lake(folder / "lake", read_only=True) as lake:
        second = lake.rows("SELECT * FROM prompts WHERE earlier IS NOT NULL")
        answers = {
            (row["prompt_id"], row["text"])
            for row in lake.rows("SELECT prompt_id, text FROM completions")
        }
        assert len(second) == 2 * len(TASKS)
        assert {row["prompt"] for row in second} == {task["follow_up"] for task in TASKS}
        assert {(row["parents"][0], row["earlier"][1]) for row in second} <= answers
        judged = lake.rows(
            "SELECT v.outcome FROM verdicts v WHERE other_id IS NULL AND prompt_id IN (SELECT unnest(?))",
            [[row["id"] for row in second]],
        )
        assert len(judged) == 2 * len(TASKS)


@pytest.mark.usefixtures("prefect_server")
def test_a_judge_that_compares_sees_both_conversations_in_full(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = folder / "judge.py"  # in the second turn it decides by what was said last
    judge.write_text(
        "def longer(prompt, first, second):\n    one, two = (len(t.split('Assistant:')[-1]) for t in (first, second))\n    return one / (one + two)\n"
    )
    code, one, err = run(folder, capsys, f"evaluation.judge={judge}:longer")
    assert code == 0, err
    figures = {row["name"]: row for row in one["metrics"]}
    assert figures["turn_2_reward_gain"]["note"] == "the judge compares answers and gives no scores"
    with Lake(folder / "lake", read_only=True) as lake:
        rows = lake.rows(
            "SELECT v.outcome, one.text AS new, two.text AS old FROM verdicts v JOIN completions one ON one.id = v.completion_id"
            " JOIN completions two ON two.id = v.other_id WHERE one.text LIKE '%User: And one that is not%'"
        )
        lengths = [
            tuple(len(row[side].split("Assistant:")[-1]) for side in ("new", "old")) for row in rows
        ]
        wins = [0.5 if new == old else float(new > old) for new, old in lengths]
        assert wins and figures["turn_2_win_rate"]["value"] == pytest.approx(sum(wins) / len(wins))


@pytest.mark.usefixtures("prefect_server")
def test_a_prompt_without_a_follow_up_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(tmp_path, capsys, tasks=[*TASKS, {"prompt": "Why?"}])
    assert (code, "turns.jsonl:5: there is no `follow_up`" in err) == (2, True)
    with Lake(tmp_path / "lake", read_only=True) as lake:
        assert (
            lake.rows(
                "SELECT kind FROM versions WHERE kind IN ('completions', 'models') AND step != 'register_model'"
            )
            == []
        )  # it is said at once


def test_the_shipped_conversations_are_twenty_and_no_two_are_alike() -> None:
    records = read_source("shipped", TURNS_FILE)
    texts = [record.text(name) for record in records for name in ("prompt", "follow_up")]
    assert len(set(texts)) == len(texts) == 40

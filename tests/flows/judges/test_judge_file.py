"""`dapflow judge FILE`: programs, LLMs and reward models label a file's rows; what is wrong is one
sentence and exit code 2.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dapflow.storage import Lake
from tests.helpers.judging import longer
from tests.helpers.model_servers import Behaviour, openai_server
from tests.helpers.person import free_port, person
from tests.helpers.toy import dapflow, words

PAIRS = [
    {"instruction": "Say yes.", "output": "yes yes", "baseline": "no", "person": 1.0},
    {"instruction": "Say no.", "output": "no", "baseline": "yes yes", "person": 0.0},
    {"instruction": "Say it.", "output": "it", "baseline": "it", "person": 0.5},
    {"instruction": "Say nothing.", "output": " ", "baseline": "no", "person": 0.0, "by": "anna"},
]
ANSWERS = [
    {"prompt": "2 + 2?", "completion": "Answer: 4", "answer": 4},
    {"prompt": "2 + 3?", "completion": "6", "answer": 5},
    {"prompt": "?", "completion": ""},
]


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.usefixtures("prefect_server")
def test_a_program_scores_completions_and_the_rows_come_back_with_their_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, lake = lines(tmp_path / "answers.jsonl", ANSWERS), str(tmp_path / "lake")
    code, out, err = dapflow(
        "judge", file, "--judge", "exact-answer", "--lake", lake, "--json", capsys=capsys
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["outcomes"] == {"invalid": 1, "scored": 2}
    assert [row["score"] for row in found["rows"]] == [1.0, 0.0, None]
    assert found["rows"][0] == {**ANSWERS[0], "score": 1.0, "outcome": "scored", "note": None}
    assert (found["rows"][2]["note"], found["calls"]) == ("empty completion", 0)


@pytest.mark.usefixtures("prefect_server")
def test_an_llm_compares_pairs_through_the_ledger_and_winrate_and_agreement_take_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, lake, judged = (
        lines(tmp_path / "pairs.jsonl", PAIRS),
        str(tmp_path / "lake"),
        tmp_path / "judged.parquet",
    )
    behaviour = Behaviour(reply=longer)
    with openai_server(behaviour) as url:
        command = (
            "judge",
            file,
            "--lake",
            lake,
            "--output",
            str(judged),
            "--json",
            *words("judge=llm", "judge.endpoint.model=judge", f"judge.endpoint.base_url={url}"),
        )
        code, out, err = dapflow(*command, capsys=capsys)
        assert code == 0, err
        assert (
            len(behaviour.asked) == 4
        )  # two pairs in both orders: equal answers and an empty one need no judge
        renamed = ("--column", "judge", *words("judge.budget.max_calls=0"))
        code, again, err = dapflow(*command, *renamed, capsys=capsys)
        assert (code, len(behaviour.asked)) == (0, 4), (
            err
        )  # what has been paid for is not asked again
    found = json.loads(out)
    assert (found["calls"], found["usd"], found["outcomes"]) == (
        4,
        0.0,
        {"invalid": 1, "lose": 1, "tie": 1, "win": 1},
    )
    assert json.loads(again)["calls"] == 0
    rows = pq.read_table(judged).to_pylist()
    assert [row["judge"] for row in rows] == [1.0, 0.0, 0.5, None]
    assert [row["by"] for row in rows] == [None] * 3 + ["anna"]  # a field that the first row lacks
    assert [(row["judge_forward"], row["judge_backward"]) for row in rows[:2]] == [
        (1.0, 0.0),
        (0.0, 1.0),
    ]
    code, out, err = dapflow(
        "agreement", str(judged), "--first", "person", "--second", "judge", "--json", capsys=capsys
    )
    assert code == 0, err
    assert (json.loads(out)["n"], json.loads(out)["agreement"]) == (3, 1.0)


@pytest.mark.usefixtures("prefect_server")
def test_a_reward_model_of_the_lake_scores_both_sides_of_a_pair(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = str(shutil.copytree(finished[0], tmp_path / "lake"))
    with Lake(lake, read_only=True) as opened:
        model = next(
            row["version"]
            for row in opened.rows("SELECT version FROM models WHERE role = 'reward'")
        )
    file = lines(tmp_path / "pairs.jsonl", PAIRS)
    code, out, err = dapflow(
        "judge", file, "--judge", f"models@{model[:8]}", "--lake", lake, "--json", capsys=capsys
    )
    assert code == 0, err
    rows = json.loads(out)["rows"]
    for row in rows[:2]:
        assert row["preference"] == float(
            row["preference_first_score"] > row["preference_second_score"]
        )
    assert (rows[2]["outcome"], rows[3]["outcome"], rows[3]["preference"]) == (
        "tie",
        "invalid",
        None,
    )
    code, out, _ = dapflow(
        "judge", file, "--judge", f"models@{model[:8]}", "--lake", lake, capsys=capsys
    )
    assert code == 0
    assert f"4 rows judged by {model[:8]}: 1 invalid, " in out


@pytest.mark.usefixtures("prefect_server")
def test_a_person_labels_the_pairs_of_a_file_and_the_second_time_none_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, port = lines(tmp_path / "pairs.jsonl", PAIRS), free_port()
    command = (
        "judge",
        file,
        "--judge",
        "human",
        "--lake",
        str(tmp_path / "lake"),
        "--json",
        *words(f"judge.port={port}"),
    )
    with person(port) as somebody:  # who prefers the longer of two answers
        code, out, err = dapflow(*command, capsys=capsys)
        assert code == 0, err
        assert len(somebody.asked) == 2  # equal answers and an empty one need no judge
        code, again, err = dapflow(*command, "--column", "mine", capsys=capsys)
        assert (code, len(somebody.asked)) == (0, 2), err
    found = json.loads(out)
    assert found["outcomes"] == {"invalid": 1, "lose": 1, "tie": 1, "win": 1}
    assert [row["preference"] for row in found["rows"]] == [1.0, 0.0, 0.5, None]
    assert [row["mine"] for row in json.loads(again)["rows"]] == [1.0, 0.0, 0.5, None]


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([], ["--judge", "shorter"], "is empty: it needs at least one row"),
        (
            [{"prompt": "a"}],
            ["--judge", "shorter"],
            "file.jsonl:1: there is nothing to judge in prompt",
        ),
        ([{"completion": "a"}], ["--judge", "shorter"], "file.jsonl:1: there is no `prompt`"),
        (
            [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 3}],
            ["--judge", "shorter"],
            "file.jsonl:2: `completion` must be text, not 3",
        ),
        (
            [{"prompt": "a", "completion": "b", "score": 1}],
            ["--judge", "shorter"],
            "has a column score already: name the new ones with --column",
        ),
        (ANSWERS, ["--judge", "nobody"], "There is no judge `nobody`"),
        (ANSWERS, [], "Who is to judge? --judge with a program"),
        (ANSWERS, ["--judge", "policy"], "Who is to judge? --judge with a program"),
        (ANSWERS, ["--judge", "models@77"], "Nothing in the lake has the id models@77"),
        (
            ANSWERS,
            ["--judge", "shorter", "--set", "loss=ipo"],
            "only keys that begin with judge. or shards. can be set here",
        ),
        (
            [{"prompt": "a", "completion": "b\ud83d"}],
            ["--judge", "shorter"],
            r"file.jsonl:1: half a character (\ud83d)",
        ),
        (
            ANSWERS,
            ["--judge", "shorter", "--output", "nowhere/x.jsonl"],
            "There is no folder nowhere for x.jsonl",
        ),
        (
            ANSWERS,
            [
                "--set",
                "judge={kind: composite, members: {a: shorter, b: json}}",
                "--set",
                "judge.weights.b=nan",
            ],
            "weights: each must be a finite number",
        ),
        (
            PAIRS,
            [
                "--set",
                "judge={kind: composite, members: {a: 're:sub', b: 're:sub'}}",
                "--set",
                "judge.weights.b=-1",
            ],
            "weights must be greater than 0 where its members compare",
        ),
        (
            ANSWERS,
            ["--judge", "shorter", "--output", "x.txt"],
            "x.txt is neither .parquet nor .jsonl",
        ),
        (
            ANSWERS,
            ["--judge", "llm", "--set", "judge.endpoint.model=x"],
            "The judge x compares two answers, and file.jsonl has one a row",
        ),
        (
            ANSWERS,
            ["--judge", "human"],
            "The judge person compares two answers, and file.jsonl has one a row: give pairs, or a judge that",
        ),
    ],
)
def test_what_a_user_can_put_right_is_said_in_a_sentence(
    rows: list[dict[str, Any]],
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = dapflow(
        "judge",
        lines(tmp_path / "file.jsonl", rows),
        "--lake",
        str(tmp_path / "lake"),
        *more,
        capsys=capsys,
    )
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_table_and_an_array_are_read_as_well(tmp_path: Path) -> None:
    from dapflow.tasks.prompts.answer_file import read_sheet, sheet_of

    (tmp_path / "a.csv").write_text('prompt,first,second\n"Why, then?",because,"so, then"\n')
    (tmp_path / "a.json").write_text('[{"prompt": "Why?", "response": "so"}]')
    assert sheet_of(tmp_path / "a.csv").columns == ("first", "second")
    assert read_sheet(tmp_path / "a.csv")[0].fields == {
        "prompt": "Why, then?",
        "first": "because",
        "second": "so, then",
    }
    assert sheet_of(tmp_path / "a.json").columns == ("response",)
    (tmp_path / "b.csv").write_text("prompt;completion\nWhy, then?;because, so\n")
    assert read_sheet(tmp_path / "b.csv")[0].fields == {
        "prompt": "Why, then?",
        "completion": "because, so",
    }


def test_a_row_with_more_fields_than_columns_is_refused_rather_than_judged_in_part(
    tmp_path: Path,
) -> None:
    from dapflow.storage import UserError
    from dapflow.tasks.prompts.answer_file import sheet_of

    (tmp_path / "a.csv").write_text("prompt,completion\nWhy?,because\nHow?,Well, so\n")
    with pytest.raises(
        UserError,
        match=r"a\.csv:3: more fields than the header has columns: put text with a comma into quotes",
    ):
        sheet_of(tmp_path / "a.csv")


def test_half_a_character_is_named_and_a_whole_one_is_read(tmp_path: Path) -> None:
    from dapflow.storage import UserError
    from dapflow.tasks.prompts.answer_file import sheet_of

    (tmp_path / "whole.jsonl").write_text(r'{"prompt": "a\ud83d\ude00", "completion": "b"}')
    assert sheet_of(tmp_path / "whole.jsonl").columns == ("completion",)
    (tmp_path / "half.json").write_text(r'[{"prompt": "a", "completion": "b\ud83d"}]')
    with pytest.raises(UserError, match=r"half\.json, row 1: half a character \(\\ud83d\)"):
        sheet_of(tmp_path / "half.json")
    (tmp_path / "deep.jsonl").write_text('{"prompt": "a", "completion": ' + "[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.jsonl:1: not valid JSON \(too deeply nested\)"):
        sheet_of(tmp_path / "deep.jsonl")

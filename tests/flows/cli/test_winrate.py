"""`dapflow winrate`, as a user types it: every form of file gives the same figures, and what is
wrong with one is said in a sentence.
"""

import csv
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dapflow.tasks.prompts.sources import SHIPPED
from tests.helpers.toy import dapflow

Row = dict[str, Any]
FIELDS = (
    "win_rate",
    "win_rate_low",
    "win_rate_high",
    "length_controlled_win_rate",
    "length_controlled_low",
    "length_controlled_high",
)


def judged(count: int = 60, **more: Any) -> list[Row]:
    """The shipped preference pairs as comparisons: every second time the better answer is the
    output, else the worse.
    """
    lines = [
        json.loads(line) for line in (SHIPPED / "preferences.jsonl").read_text("utf-8").splitlines()
    ]
    rows = list[Row]()
    for number in range(count):
        pair, won = lines[number % len(lines)], number % 2 == 0
        output, baseline = (
            (pair["chosen"], pair["rejected"]) if won else (pair["rejected"], pair["chosen"])
        )
        instruction = pair["prompt"] if number < len(lines) else f"{pair['prompt']} ({number})"
        rows.append(
            {
                "instruction": instruction,
                "output": output,
                "baseline": baseline,
                "preference": 0.9 if won else 0.2,
            }
            | more
        )
    return rows


def written(path: Path, rows: list[Row]) -> Path:
    """The rows in the form that the path's suffix says."""
    form = path.name.lower().removesuffix(".gz").rsplit(".", 1)[1]
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if form == "csv":
            sign = ";" if "semicolons" in path.name else "\t" if "tabs" in path.name else ","
            writer = csv.DictWriter(file, rows[0].keys(), delimiter=sign)
            writer.writeheader()
            writer.writerows(rows)
        elif form == "json":
            json.dump(rows, file, indent=1)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """What the command prints; of code 2, the sentence."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        found, out, err = dapflow("winrate", *map(str, arguments), capsys=capsys)
        assert found == code, err
        assert "Traceback" not in err and "nan" not in out.lower()
        return out if code == 0 else err

    return run


@pytest.mark.parametrize(
    "name",
    [
        "rows.parquet",
        "rows.csv",
        "rows.semicolons.csv",
        "rows.tabs.csv",
        "rows.json",
        "rows.jsonl",
        "rows.csv.gz",
        "rows.json.gz",
        "rows.jsonl.gz",
        "r.PARQUET",
        "r.CSV",
        "r.Json",
        "r.CSV.GZ",
    ],
)
def test_every_form_of_file_gives_the_same_figures(said: Any, tmp_path: Path, name: str) -> None:
    found = json.loads(said(written(tmp_path / name, judged(24)), "--json"))
    assert found == json.loads(said(written(tmp_path / "again.jsonl", judged(24)), "--json"))
    assert (found["n"], list(found["systems"])) == (24, ["output"])
    one = found["systems"]["output"]
    assert one["win_rate"] == pytest.approx(55.0)  # (0.9 + 0.2) / 2
    assert all(0 <= one[field] <= 100 for field in FIELDS)
    assert one["win_rate_low"] < 55 < one["win_rate_high"]


def test_columns_may_have_other_names(said: Any, tmp_path: Path) -> None:
    renamed = [
        {f"my {name}": value for name, value in row.items()} | {"model": "m"} for row in judged(24)
    ]
    options = [
        part
        for name in ("instruction", "output", "baseline", "preference")
        for part in (f"--{name}", f"my {name}")
    ]
    found = json.loads(
        said(
            written(tmp_path / "rows.parquet", renamed), *options, "--generator", "model", "--json"
        )
    )
    assert found["systems"]["m"]["win_rate"] == pytest.approx(55.0)


def test_a_file_of_several_systems_has_a_row_of_results_for_each(said: Any, tmp_path: Path) -> None:
    worse = [row | {"preference": row["preference"] / 2} for row in judged(generator="worse")]
    path = written(tmp_path / "rows.parquet", [*worse, *judged(generator="better")])
    for options in ([], ["--no-difficulty"]):
        found = json.loads(said(path, "--json", *options))
        assert (found["n"], found["prompts"], list(found["systems"])) == (
            120,
            60,
            ["better", "worse"],
        )
        assert found["systems"]["better"]["win_rate"] == pytest.approx(
            2 * found["systems"]["worse"]["win_rate"]
        )
        assert (
            found["systems"]["better"]["length_controlled_win_rate"]
            > found["systems"]["worse"]["length_controlled_win_rate"]
        )
    table = said(path)
    assert table.index("better") < table.index("worse") and "60 prompts give ±" in table


def test_rows_without_a_value_are_left_out_and_counted(said: Any, tmp_path: Path) -> None:
    rows = judged(30)
    rows[3]["preference"], rows[4]["preference"], rows[5]["output"] = None, float("nan"), None
    for name in ("rows.parquet", "rows.jsonl"):
        found = json.loads(said(written(tmp_path / name, rows), "--json"))
        assert found["n"] == 27
        assert found["notes"][:2] == [
            "1 row has no `output`: left out.",
            "2 rows have no `preference`: left out.",
        ]
    assert "2 rows have no `preference`" in said(tmp_path / "rows.jsonl")


def test_an_instruction_that_is_there_again_counts_and_is_said(said: Any, tmp_path: Path) -> None:
    rows = judged(30)
    again = [*rows, rows[0], rows[2], rows[4] | {"output": "another answer", "preference": 1.0}]
    found = json.loads(said(written(tmp_path / "rows.csv", again), "--json"))
    assert (found["n"], found["prompts"]) == (33, 30)
    assert found["systems"]["output"]["win_rate"] == pytest.approx(
        100 * (15 * (0.9 + 0.2) + 2 * 0.9 + 1.0) / 33
    )
    told = "3 rows have an instruction that their system was judged on before: kept, so that instructions with more rows count for more."
    assert (
        found["notes"][0]
        == told
        + " 2 of them are the same again in every column: is a part of the file in it twice?"
    )
    several = [
        row | {"generator": name} for row in rows for name in "ab"
    ]  # one row each of two systems is no repetition
    assert not [
        note
        for note in json.loads(said(written(tmp_path / "two.csv", several), "--json"))["notes"]
        if "before" in note
    ]


def test_a_single_row_has_no_length_controlled_rate_and_says_why(said: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", judged(1))
    found = json.loads(said(path, "--json"))
    assert [found["systems"]["output"][field] for field in FIELDS] == [
        90.0,
        0.0,
        100.0,
        None,
        None,
        None,
    ]
    assert any("no length-controlled win rate" in note for note in found["notes"])
    assert "no length-controlled win rate" in said(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty: it needs at least one row"),
        ("instruction,output,baseline,preference\n", "is empty"),
        ("instruction,output,baseline,preference\na,b,c,\n", "No row of rows.csv has all of"),
        (
            "instruction,output,baseline\na,b,c\n",
            "has no column preference (it has baseline, instruction, output): say which it is with --preference NAME",
        ),
        ("prompt,output\na,b\n", "with --instruction NAME --baseline NAME --preference NAME"),
        (
            "instruction,output,baseline,preference\na,b,c,0.5\na,b,c,1.7\n",
            "row 2: `preference` is 1.7, but must be the probability",
        ),
        ("instruction,output,baseline,preference\na,b,c,-1\n", "row 1: `preference` is -1"),
        ("instruction,output,baseline,preference\na,b,c,inf\n", "`preference` is inf"),
        (
            "instruction,output,baseline,preference\na,b,c,better\n",
            "must be a number from 0 to 1, not 'better'",
        ),
        (
            "instruction,output,baseline,preference,preference\na,b,c,0.2,0.9\n",
            "has the column preference more than once",
        ),
        (
            "instruction,output,baseline,preference\na,b, with a comma,c,1\n",
            "rows.csv:2: more fields than the header has columns",
        ),
        (
            "instruction;output;baseline;preference\na;b;c;0,5\n",
            "not '0,5' (with a point before its decimals, no comma)",
        ),
        (
            "instruction,output,baseline,preference,judge\na,b,c,1,x\na,b,c,0,y\n",
            "votes of 2 judges (column `judge`: x, y)",
        ),
        ('instruction,output,baseline,preference\na,"b\x00",c,1\n', None),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_a_sentence(
    said: Any, tmp_path: Path, content: str, sentence: str | None
) -> None:
    (tmp_path / "rows.csv").write_text(content, "utf-8")
    if sentence is None:
        said(tmp_path / "rows.csv", "--json")
    else:
        assert sentence in said(tmp_path / "rows.csv", code=2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.csv", None, "There is no file"),
        ("rows.xlsx", b"PK", "of no form that is known here"),
        ("rows.parquet", b"no parquet", "not a readable Parquet file"),
        ("rows.csv", b"\xff\xfe\x00", "not UTF-8 text"),
        ("rows.csv.gz", b"no gzip", "cannot be read"),
        ("rows.json", b"[{]", "not valid JSON"),
        ("rows.json", b"[" * 100_000, "not valid JSON"),
        ("rows.json", b"[1, 2]", "row 1: expected an object"),
        ("rows.json", b"[]", "is empty"),
        ("rows.jsonl", b'{"instruction": 1}\n{', "rows.jsonl:2: not valid JSON"),
        (
            "rows.jsonl",
            b'{"instruction": "a", "output": ["b"], "baseline": "c", "preference": 1}',
            "`output` must be text, not list",
        ),
        (
            "rows.jsonl",
            b'{"instruction": "a", "output": "b", "baseline": "c", "preference": [1]}',
            "must be a number from 0 to 1",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(
    said: Any, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert sentence in said(tmp_path / name, code=2)
    said(tmp_path, code=2)  # a directory


def test_two_options_may_not_name_one_column(said: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", judged(10))
    assert "Two of the options name the column output" in said(path, "--baseline", "output", code=2)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_row_that_does_not_say_its_system_is_left_out_where_others_do(
    said: Any, tmp_path: Path, form: str
) -> None:
    rows = [
        *judged(30, generator="a"),
        *({key: value for key, value in row.items() if key != "generator"} for row in judged(4)),
    ]
    found = json.loads(said(written(tmp_path / f"rows.{form}", rows), "--json"))
    assert (found["n"], list(found["systems"]), found["notes"][0]) == (
        30,
        ["a"],
        "4 rows have no `generator`: left out.",
    )


def test_a_generator_that_is_asked_for_must_be_there(said: Any, tmp_path: Path) -> None:
    assert "has no column model" in said(
        written(tmp_path / "rows.json", judged(10)), "--generator", "model", code=2
    )


def test_805_rows_take_less_than_three_seconds_after_imports(said: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = written(
        tmp_path / "rows.parquet",
        [row | {"preference": float(rng.random())} for row in judged(805)],
    )
    said(path)  # imports
    started = time.process_time()  # the machine may have other work
    assert json.loads(said(path, "--json"))["prompts"] > 400
    assert time.process_time() - started < 3


def test_help_comes_with_an_example_and_without_torch() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "dapflow.flows.cli.main", "winrate", "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "dapflow winrate judged.parquet" in found.stdout

"""`dapflow agreement` on files and on verdicts of a lake, as a user calls it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dapflow.flows.cli import main as cli
from dapflow.storage import Lake
from tests.helpers.lakes import ids, initial_policy, iteration, named, write


def dapflow(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    code = 0
    try:
        cli.main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_two_columns_of_a_file_with_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "instruction": f"i{n}",
            "output": "a" * (n + 1),
            "baseline": "b" * 10,
            "person": [1.0, 0.0, 0.5][n % 3],
            "judge": [0.9, 0.6, 0.5][n % 3],
        }
        for n in range(30)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labelled.parquet")
    words = (
        "agreement",
        str(tmp_path / "labelled.parquet"),
        "--first",
        "person",
        "--second",
        "judge",
    )
    code, out, err = dapflow(
        *words, "--json", "--picture", str(tmp_path / "by-length.png"), capsys=capsys
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["n"], found["decided"], found["accuracy"]) == (30, 20, 0.5)
    assert found["confusion"]["second"] == {"first": 10, "tie": 0, "second": 0}
    assert (tmp_path / "by-length.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = dapflow(*words, capsys=capsys)
    assert code == 0
    assert "30 pairs of answers that both have judged" in out
    assert "66.7% [48.8%, 80.8%]" in out  # Wilson's interval of 20 in 30


def test_scores_and_comparisons_of_the_lake_are_compared_on_the_same_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lake(tmp_path) as lake:
        made = iteration(lake, 1, initial_policy(lake), prompts=2, n=3)
        scored = lake.rows(
            "SELECT * FROM verdicts WHERE version = ? ORDER BY id", [made["verdicts"].version]
        )
        one, two = scored[0], scored[1]  # of the first prompt
        better = one["score"] > two["score"]
        version = named("compared")
        rows = pa.table(
            {
                "id": ids(version, 2), "prompt_id": [one["prompt_id"]] * 2, "completion_id": [two["completion_id"], one["completion_id"]],
                "other_id": [one["completion_id"], scored[2]["completion_id"]], "outcome": ["lose" if better else "win", "tie"],
                "score": [0.2 if better else 0.8, 0.5],
            }
        )  # fmt: skip
        write(lake, "verdicts", version, "compare", rows, {})
    words = (
        "agreement",
        f"verdicts@{made['verdicts'].version}",
        f"verdicts@{version}",
        "--lake",
        str(tmp_path),
    )
    code, out, err = dapflow(*words, "--json", capsys=capsys)
    assert code == 0, err
    found = json.loads(out)
    assert (found["n"], found["decided"], found["accuracy"]) == (2, 1, 1.0)
    code, _, err = dapflow(
        "agreement",
        f"pairs@{made['pairs'].version}",
        f"verdicts@{version}",
        "--lake",
        str(tmp_path),
        capsys=capsys,
    )
    assert code == 2
    assert "holds pairs, not verdicts" in err


def test_what_is_missing_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = dapflow("agreement", str(tmp_path / "nowhere.csv"), capsys=capsys)
    assert (code, "There is no file" in err) == (2, True)
    code, _, err = dapflow(
        "agreement", "verdicts@1", "verdicts@2", "--lake", str(tmp_path / "no-lake"), capsys=capsys
    )
    assert (code, "There is no lake" in err) == (2, True)
    file = tmp_path / "judged.csv"
    file.write_text("prompt,chosen,rejected,preference,person\nWhy?,so,or so,1,0.5\n")
    code, _, err = dapflow(
        "agreement", str(file), "--first", "judge", "--second", "person", capsys=capsys
    )
    assert (code, "with --instruction NAME --output NAME --baseline NAME --first NAME." in err) == (
        2,
        True,
    )


def test_the_columns_may_be_called_as_in_a_file_that_has_been_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "judged.csv"
    file.write_text(
        "prompt,chosen,rejected,preference,person\nWhy?,so,or so,1,1\nHow?,thus,not,1,0\n"
    )
    columns = (
        "--first",
        "preference",
        "--second",
        "person",
        "--instruction",
        "prompt",
        "--output",
        "chosen",
        "--baseline",
        "rejected",
    )
    code, out, err = dapflow("agreement", str(file), *columns, "--json", capsys=capsys)
    assert code == 0, err
    assert (json.loads(out)["n"], json.loads(out)["agreement"]) == (2, 0.5)

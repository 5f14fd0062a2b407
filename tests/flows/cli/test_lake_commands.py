"""The commands on the lake, as a user types them: what they print, as text and as JSON, and what
they refuse.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dapflow.storage import Lake
from dapflow.storage.runs import record_run
from tests.helpers.lakes import Made, initial_policy, iteration
from tests.helpers.toy import dapflow


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Made]]:
    """A lake with two nights, made once: to be read, or copied."""
    root, nights = tmp_path_factory.mktemp("nights") / "lake", list[Made]()
    with Lake(root) as lake:
        for number in (1, 2):
            nights.append(
                iteration(lake, number, nights[0]["trained"] if nights else initial_policy(lake))
            )
            with record_run(lake, f"night {number}", "rso", {}) as run:
                run.made(1, nights[-1]["trained"], nights[-1]["metrics"])
    return root, nights


@pytest.fixture
def nights(
    two_nights: tuple[Path, list[Made]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Made]:
    """Two nights in a lake that DAPFLOW_LAKE names, a copy."""
    shutil.copytree(two_nights[0], tmp_path / "lake")
    monkeypatch.setenv("DAPFLOW_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("COLUMNS", "200")
    return two_nights[1]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints; `.json` of it with --json."""

    def run(*arguments: str, code: int = 0) -> str:
        found, out, err = dapflow(*arguments, capsys=capsys)
        assert found == code, err
        assert "Traceback" not in err
        return out if code == 0 else err

    return run


def test_datasets_lists_every_version_newest_first(nights: list[Made], said: Any) -> None:
    rows = json.loads(said("datasets", "--json"))
    assert len(rows) == 15
    assert {row["state"] for row in rows} == {"complete"}
    assert [
        row["version"] for row in json.loads(said("datasets", "--kind", "pairs", "--json"))
    ] == [
        nights[1]["pairs"].version,
        nights[0]["pairs"].version,
    ]
    assert nights[0]["completions"].version[:8] in said("datasets")


def test_show_takes_a_noun_a_version_or_both(nights: list[Made], said: Any) -> None:
    assert "question 2.3 of a prompt" in said("show", "prompts")
    assert "question 1.3 of a prompt" in said("show", f"prompts@{nights[0]['prompts'].version[:7]}")
    rows = json.loads(said("show", "pairs", "--where", "dropped is null", "--limit", "2", "--json"))
    assert [row["id"][-1] for row in rows] == ["1", "2"]
    assert "database says" in said("show", "pairs", "--where", "no_such_column = 1", code=2)
    assert "Nothing in the lake" in said("show", "pairs@00000000", code=2)


def test_lineage_as_tree_as_json_and_row_by_row(nights: list[Made], said: Any) -> None:
    pair, model = f"{nights[1]['pairs'].version}-00000001", nights[1]["trained"].version
    tree = said("lineage", pair)
    for part in ("completions", "seed", "question 2.1 of a prompt", model[:8], "win_rate"):
        assert part in tree, part
    assert json.loads(said("lineage", f"{pair[:8]}-1", "--json"))["id"] == pair
    levels = {
        (row["level"], row["rows"])
        for row in json.loads(said("lineage", model, "--json"))["levels"]
    }
    assert ("pairs", 3) in levels and ("prompts", 3) in levels
    assert "first-round" in said("lineage", model)
    rows = [json.loads(line) for line in said("lineage", model, "--rows", "--json").splitlines()]
    assert [row["pair"] for row in rows] == [
        f"{nights[1]['pairs'].version}-{n:08d}" for n in (1, 2, 3)
    ]


def test_headings_are_bold_and_not_the_words_for_it(nights: list[Made], said: Any) -> None:
    pairs, model = nights[1]["pairs"].version, nights[1]["trained"].version
    assert said("show", f"pairs@{pairs}").startswith(f"pairs@{pairs}  ")
    assert "\nfrom\n" in said("lineage", model) and "[bold]" not in said("lineage", model)


def test_diff_of_two_nights(nights: list[Made], said: Any) -> None:
    found = json.loads(said("diff", *(night["prompts"].version for night in nights), "--json"))
    assert (found["added"], found["removed"]) == (4, 4)
    assert "added" in said("diff", *(night["prompts"].version for night in nights))


@pytest.mark.usefixtures("nights")
def test_sql_reads_in_every_format_and_writes_in_none(said: Any, tmp_path: Path) -> None:
    query = "select kind, count(*) as n from versions group by kind order by kind"
    assert "completions" in said("sql", query)
    assert said("sql", query, "--format", "csv").splitlines()[:2] == ["kind,n", "acceptances,2"]
    assert json.loads(said("sql", query, "--format", "json"))[1] == {"kind": "completions", "n": 2}
    program = [sys.executable, "-m", "dapflow.flows.cli.main", "sql", query, "--format", "parquet"]
    (tmp_path / "rows.parquet").write_bytes(
        subprocess.run(program, check=True, capture_output=True).stdout
    )
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 7
    for wrong in (
        "delete from prompts",
        "drop table pairs",
        "select 1; select 2",
        "copy prompts to 'x.csv'",
        "attach 'x.db'",
        "set threads=1",
    ):
        assert "one SELECT" in said("sql", wrong, code=2)
    assert 'no table "nowhere"' in said("sql", "select nothing from nowhere", code=2)
    for wrong in ("selec 1", "with x as (delete from pairs) select 1"):
        assert "database says" in said("sql", wrong, code=2)
    assert "--limit" in said("sql", "select 1", "--limit", "-1", code=2)
    assert not Path("x.csv").exists()


@pytest.mark.usefixtures("nights")
def test_a_pipe_that_is_closed_early_is_no_error() -> None:
    command = f"{sys.executable} -m dapflow.flows.cli.main sql 'select i from range(1000000) t(i)' --format csv | head -1"
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, capture_output=True, text=True
    )
    assert (found.stdout, found.stderr) == ("i\n", "")


def test_export_import_verify_and_gc(nights: list[Made], said: Any, tmp_path: Path) -> None:
    assert "4 rows of pairs" in said(
        "export", nights[0]["pairs"].version[:8], str(tmp_path / "pairs.jsonl")
    )
    found = json.loads(said("import", str(tmp_path / "pairs.jsonl"), "--json"))
    assert (found["rows"], found["left_out"]) == (4, {"tie": 1})
    assert "16 versions" in said("verify")
    assert json.loads(said("gc", "--json")) == {"removed": False, "bytes": 0, "versions": []}
    next(
        (tmp_path / "lake" / "data").rglob(f"version={nights[1]['pairs'].version}/*.parquet")
    ).unlink()
    assert "1 of 16 versions are damaged" in said("verify", code=2)
    assert nights[1]["pairs"].version[:8] in said("gc", "--runs", "0")
    kept = json.loads(
        said("gc", "--runs", "0", "--keep", f"{nights[1]['metrics'].version}-0", "--json")
    )["versions"]
    assert {one["version"] for one in kept}.isdisjoint(ref.version for ref in nights[1].values())
    assert json.loads(said("verify", "--repair", "--json"))["repaired"]
    assert "15 versions" in said("verify")
    assert json.loads(said("gc", "--runs", "0", "--yes", "--json"))["removed"]
    assert "There is no lake" in said("gc", "--yes", "--lake", str(tmp_path / "mistyped"), code=2)


def test_a_lake_that_is_not_there_is_named(tmp_path: Path, said: Any) -> None:
    for command in (["datasets"], ["show", "pairs"], ["verify"], ["sql", "select 1"]):
        assert "There is no lake at" in said(*command, "--lake", str(tmp_path / "none"), code=2)
    assert not (tmp_path / "none").exists()

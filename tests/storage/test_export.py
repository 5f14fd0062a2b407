"""A version as files that other programs read: every format, all or nothing, and back into a lake."""

import csv
import json
from pathlib import Path
from unittest import mock

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dapflow.storage import Lake, LakeError
from dapflow.storage.export import export
from dapflow.tasks.prompts.preferences import import_preferences
from tests.helpers.lakes import Made


def test_parquet_json_lines_and_csv_hold_every_row_and_column(
    lake: Lake, made: Made, tmp_path: Path
) -> None:
    wanted = lake.rows_of(made["completions"])
    for suffix in ("parquet", "jsonl", "csv"):
        assert export(lake, made["completions"], tmp_path / f"rows.{suffix}") == 16
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == wanted
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["id"], row["token_ids"]) for row in lines] == [
        (row["id"], row["token_ids"]) for row in wanted
    ]
    with (tmp_path / "rows.csv").open() as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == [row["text"] for row in wanted]


def test_a_folder_of_pairs_is_a_preference_dataset_as_trl_reads_it(
    lake: Lake, made: Made, tmp_path: Path
) -> None:
    assert export(lake, made["pairs"], tmp_path / "pairs") == 3  # the tie is left out
    found = datasets.load_dataset(
        str(tmp_path / "pairs"), split="train", cache_dir=str(tmp_path / "cache")
    )
    pair = lake.rows_of(made["pairs"])[1]
    assert found.column_names == ["prompt", "chosen", "rejected"]
    assert found[0] == {
        "prompt": [{"role": "user", "content": pair["prompt"]}],
        "chosen": [{"role": "assistant", "content": pair["chosen"]}],
        "rejected": [{"role": "assistant", "content": pair["rejected"]}],
    }


def test_what_was_exported_comes_back(lake: Lake, made: Made, tmp_path: Path) -> None:
    columns = ("prompt", "chosen", "rejected", "margin", "dropped")
    export(lake, made["pairs"], tmp_path / "pairs.jsonl")
    back = lake.rows_of(import_preferences(lake, tmp_path / "pairs.jsonl"))
    assert [[row[name] for name in columns] for row in back] == [
        [row[name] for name in columns] for row in lake.rows_of(made["pairs"])
    ]


def test_what_is_there_is_not_overwritten_unless_asked(
    lake: Lake, made: Made, tmp_path: Path
) -> None:
    for name in ("pairs.jsonl", "pairs"):
        export(lake, made["pairs"], tmp_path / name)
        with pytest.raises(LakeError, match="is there already.*have it replaced"):
            export(lake, made["pairs"], tmp_path / name)
        export(lake, made["pairs"], tmp_path / name, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lake",
        "pairs",
        "pairs.jsonl",
    ]  # nothing partial is left
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(LakeError, match="no export has made"):
        export(lake, made["pairs"], tmp_path / "mine", replace=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    with pytest.raises(LakeError, match="cannot be written .*export to another place"):
        export(lake, made["pairs"], Path("/proc/pairs.csv"))
    with pytest.raises(LakeError, match="write to .parquet, .jsonl"):
        export(lake, made["pairs"], tmp_path / "pairs.xlsx")


def test_rows_come_as_arrow_as_batches_and_as_a_dataset_over_the_same_memory(
    lake: Lake, made: Made
) -> None:
    table = lake.read(f"completions@{made['completions'].version[:8]}")
    assert table.schema.field("token_ids").type == pa.list_(pa.int32()) and table.num_rows == 16
    assert pa.Table.from_batches(lake.read_batches(made["completions"], rows=5)) == table
    with mock.patch.object(Lake, "read", return_value=table):
        shared = lake.dataset(made["completions"]).data.table
    assert [column.chunk(0).buffers()[-1].address for column in shared.columns] == [
        column.chunk(0).buffers()[-1].address for column in table.columns
    ]
    assert (
        lake.dataset("pairs@" + made["pairs"].version)["chosen"][1]
        == lake.rows_of(made["pairs"])[1]["chosen"]
    )

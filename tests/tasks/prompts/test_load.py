"""Sources: every malformed line is named; the split is by content, so nobody is tested on what they
were trained on.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dapflow.storage import UserError
from dapflow.tasks.prompts.load import PROMPTS_FILE, prompt_text, split_prompts
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, part_of
from dapflow.tasks.prompts.row import prompt_row
from dapflow.tasks.prompts.sources import find_source, read_source


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', r"mine.jsonl:2: not valid JSON"),
        ('["a"]', r"mine.jsonl:2: expected a JSON object.*found list"),
        ('{"text": "a"}', r"mine.jsonl:2: there is no `prompt` \(fields: text\)"),
        ('{"prompt": 3}', r"mine.jsonl:2: `prompt` must be a non-empty string"),
        ('{"prompt": "  "}', r"mine.jsonl:2: `prompt` must be a non-empty string"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    source = write(tmp_path / "mine.jsonl", '{"prompt": "fine"}', line, '{"prompt": "fine too"}')
    with pytest.raises(UserError, match=message):
        [prompt_text(record) for record in read_source(source, PROMPTS_FILE)]


def test_an_empty_file_a_missing_one_and_a_binary_one_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        read_source(write(tmp_path / "empty.jsonl", "", " "), PROMPTS_FILE)
    with pytest.raises(UserError, match="There is no file"):
        find_source(str(tmp_path / "nowhere.jsonl"), PROMPTS_FILE)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_source(str(tmp_path / "bytes.jsonl"), PROMPTS_FILE)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_source(str(tmp_path / "no.parquet"), PROMPTS_FILE)


def test_jsonl_and_parquet_give_the_same_records(tmp_path: Path) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    lines = write(tmp_path / "a.jsonl", *(json.dumps(row) for row in rows))
    found = [
        [record.text("prompt") for record in read_source(name, PROMPTS_FILE)]
        for name in (lines, str(tmp_path / "a.parquet"))
    ]
    assert found == [["one", "two"], ["one", "two"]]


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", '{"prompt": "one"}')
    before = find_source(source, PROMPTS_FILE).digest
    write(tmp_path / "a.jsonl", '{"prompt": "two"}')
    assert find_source(source, PROMPTS_FILE).digest != before


def test_the_split_is_disjoint_complete_and_indifferent_to_order() -> None:
    records = read_source("shipped", PROMPTS_FILE)
    split = split_prompts(records, 64)
    train, held_out = (
        {prompt_text(record) for record in split[name]} for name in ("train", "held_out")
    )
    assert len(held_out) == 64
    assert not train & held_out
    assert train | held_out == {prompt_text(record) for record in records}
    assert {
        prompt_text(record) for record in split_prompts(records[::-1], 64)["held_out"]
    } == held_out


def test_holding_out_everything_is_refused(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl", '{"prompt": "one"}', '{"prompt": "one"}', '{"prompt": "two"}'
    )
    with pytest.raises(
        UserError, match=r"2 different prompts and 2 are to be held out.*prompts\.held_out"
    ):
        split_prompts(read_source(source, PROMPTS_FILE), 2)


def test_the_shipped_preferences_have_parts_for_everybody() -> None:
    prompts = [prompt_text(record) for record in read_source("shipped", PREFERENCES_FILE)]
    counts = {
        part: sum(part_of(prompt) == part for prompt in prompts)
        for part in ("reward", "judge", "test")
    }
    assert counts["reward"] > counts["judge"] > counts["test"] >= 30


def test_a_prompt_is_a_row_that_its_text_recognises() -> None:
    row = prompt_row("3f9c-00000000", "Hi", "mine.jsonl, line 1", split="train", parents=["a"])
    assert row == {
        "id": "3f9c-00000000",
        "digest": "3639efcd08abb273",  # sha256 of "Hi" begins so
        "prompt": "Hi",
        "source": "mine.jsonl, line 1",
        "split": "train",
        "parents": ["a"],
    }

"""Preference data in the usual forms, and what is none of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dapflow.storage import Lake, UserError
from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.preferences import import_preferences
from dapflow.tasks.prompts.sources import Record


def columns(fields: dict[str, Any]) -> tuple[Any, ...]:
    row = preference(Record(place="file.jsonl:3", fields=fields))
    return tuple(row.get(name) for name in ("prompt", "chosen", "rejected", "margin", "dropped"))


def turns(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text}
        for place, text in enumerate(texts)
    ]


def test_plain_pairs_with_scores() -> None:
    assert columns({"prompt": "p", "chosen": "c", "rejected": "r"}) == ("p", "c", "r", None, None)
    assert columns(
        {"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": 8, "score_rejected": 5.5}
    ) == ("p", "c", "r", 2.5, None)
    assert columns({"prompt": "p", "chosen": "same", "rejected": "same"})[4] == "identical"
    assert (
        columns({"prompt": "p", "chosen": " ", "rejected": "r"})[4]
        == columns({"prompt": "", "chosen": "c", "rejected": "r"})[4]
        == "empty"
    )


def test_messages_with_and_without_a_prompt_of_their_own() -> None:
    answers = {"chosen": turns("p", "c"), "rejected": turns("p", "r")}
    assert columns(answers)[:3] == columns({"prompt": "p", **answers})[:3] == ("p", "c", "r")
    alone = {"prompt": turns("p"), "chosen": turns("p", "c")[1:], "rejected": turns("p", "r")[1:]}
    assert columns(alone)[:3] == ("p", "c", "r")
    several = {"chosen": turns("p", "a", "q", "c"), "rejected": turns("p", "a", "q", "r")}
    assert columns(several)[1:] == ("c", "r", None, "several_turns")
    assert json.loads(columns(several)[0]) == turns("p", "a", "q")


def test_hh_transcripts_that_differ_in_the_last_answer() -> None:
    start = "\n\nHuman: p\n\nAssistant: a\n\nHuman: q\n\nAssistant:"
    assert columns({"chosen": f"{start} c", "rejected": f"{start} r"})[1:] == (
        "c",
        "r",
        None,
        "several_turns",
    )
    assert columns(
        {"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: r"}
    )[:3] == ("p", "c", "r")
    assert (
        columns({"chosen": f"{start} c", "rejected": "\n\nHuman: other\n\nAssistant: r"})[4]
        == "different_prompts"
    )
    assert (
        columns(
            {"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: "}
        )[4]
        == "empty"
    )


def test_ultrafeedback_the_best_against_the_worst() -> None:
    answers = [
        {"response": text, "overall_score": score}
        for text, score in (("b", 7), ("a", 8.5), ("c", 2))
    ]
    assert columns({"instruction": "p", "completions": answers}) == ("p", "a", "c", 6.5, None)
    assert (
        columns(
            {"instruction": "p", "completions": [answers[0], answers[0] | {"response": "other"}]}
        )[4]
        == "tie"
    )
    assert columns({"instruction": "p", "completions": answers[:1]})[4] == "unscored"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt": "p", "chosen": "c"}, "rejected"),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "rating": "very"}, "negligible"),
        ({"chosen": turns("p", "c", "q"), "rejected": turns("p", "r", "q")}, "one last message of the assistant"),
        ({"prompt": turns("p"), "chosen": [{"content": 3}], "rejected": turns("p", "r")}, "list of messages"),
        ({"instruction": "p", "completions": ["a", "b"]}, "list of answers"),
        ({"chosen": "\n\nHuman: p", "rejected": "\n\nHuman: p"}, "transcript"),
        ({"prompt": "p", "chosen": "a\ud800b", "rejected": "r"}, "half a character"),
    ],
)  # fmt: skip
def test_what_is_none_of_them_is_named_with_its_place(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"file.jsonl:3.*{sentence}"):
        columns(fields)


def test_json_lines_gzip_and_parquet_give_the_same_version(lake: Lake, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "c", "rejected": "r"} for n in range(5)]
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8-sig")  # as some editors write it
    with gzip.open(tmp_path / "b.JSONL.GZ", "wt") as stream:
        stream.write(text)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.Parquet")
    for name in ("a.jsonl", "b.JSONL.GZ", "c.Parquet"):
        ref = import_preferences(lake, tmp_path / name)
        assert [(row["prompt"], row["source"].split(":")[0]) for row in lake.rows_of(ref)] == [
            (f"p{n}", name) for n in range(5)
        ]
        assert import_preferences(lake, tmp_path / name) == ref
    assert len(lake.catalogue().versions) == 3


def test_a_malformed_line_leaves_nothing_readable_and_the_mended_file_is_read_whole(
    lake: Lake, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    good = json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"})
    file.write_text(f"{good}\n{{oops\n{good}\n")
    with pytest.raises(UserError, match="pairs.jsonl:2: not valid JSON"):
        import_preferences(lake, file)
    assert lake.rows("SELECT * FROM pairs") == []
    file.write_text(f"{good}\n{good}\n{good}\n")
    assert import_preferences(lake, file).rows == 3
    file.write_text("")
    with pytest.raises(UserError, match="empty"):
        import_preferences(lake, file)

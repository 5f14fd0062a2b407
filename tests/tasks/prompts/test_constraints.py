"""Constraints of a prompt: what is none is refused in a sentence, and the lake gives back what came
in.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dapflow.storage import UserError
from dapflow.tasks.prompts.constraints import RULES, constraints_of, of_text, text_of
from dapflow.tasks.prompts.load import prompt_tags
from dapflow.tasks.prompts.sources import Record, read_source

ALL = [
    {"rule": "sentences", "exactly": 2},
    {"rule": "words", "at_least": 5, "at_most": 20},
    {"rule": "items", "exactly": 3},
    {"rule": "numbered", "exactly": 3},
    {"rule": "lines", "exactly": 3},
    {"rule": "contains", "words": ["café", "tea time"]},
    {"rule": "excludes", "words": ["dog"]},
    {"rule": "without", "characters": ",!"},
    {"rule": "starts_with", "text": "Dear"},
    {"rule": "ends_with", "text": "?"},
    {"rule": "json", "keys": ["a", "b"]},
    {"rule": "language", "is": "German"},
    {"rule": "lowercase"},
    {"rule": "uppercase"},
    {"rule": "quoted"},
]


def test_every_rule_goes_into_the_lake_and_comes_back() -> None:
    constraints = constraints_of(ALL, "here")
    assert tuple(one.rule for one in constraints) == RULES
    text = text_of(constraints)
    assert text is not None
    assert of_text(text) == constraints == constraints_of(text, "here")
    assert text.startswith('[{"rule":"sentences","exactly":2},')


def test_no_constraints_are_none() -> None:
    for fields in ({}, {"constraints": None}, {"constraints": []}):
        assert prompt_tags(Record(place="here", fields=fields))["constraints"] is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, '`constraints` must be a list such as [{"rule": "words", "at_most": 20}], not 3'),
        ({"rule": "quoted"}, "`constraints` must be a list"),
        ("two sentences", "`constraints` is not valid JSON: 'two sentences'"),
        ([["quoted"]], "a constraint must be an object with its `rule`"),
        ([{"exactly": 2}], "a constraint must be an object with its `rule`"),
        ([{"rule": "sentence"}], "there is no rule `sentence` of constraints: take one of sent"),
        ([{"rule": "json"}], "the constraint `json`: `keys` is missing"),
        ([{"rule": "items", "at_most": 3}], "the constraint `items`: `exactly` is missing"),
        ([{"rule": "words"}], "`words`: `exactly`, `at_least` or `at_most` is missing"),
        ([{"rule": "words", "exactly": 0}], "`exactly` must be greater than or equal to 1, not 0"),
        ([{"rule": "words", "exactly": -1}], "`exactly` must be greater than or equal to 1"),
        ([{"rule": "words", "exactly": "3"}], "`exactly` must be a whole number, not '3'"),
        ([{"rule": "words", "exactly": True}], "`exactly` must be a whole number, not True"),
        ([{"rule": "lines", "exactly": 2.5}], "`exactly` must be a whole number, not 2.5"),
        (
            [{"rule": "words", "exactly": 3, "at_most": 5}],
            "`exactly` goes with neither `at_least` nor `at_most`",
        ),
        (
            [{"rule": "words", "at_least": 9, "at_most": 5}],
            "`at_least` is more than `at_most`",
        ),
        ([{"rule": "contains", "words": "cat"}], "`words` must be a list, not 'cat'"),
        ([{"rule": "contains", "words": []}], "`words` must have something in it"),
        ([{"rule": "excludes", "words": ["a", 3]}], "`words.1` must be text, not 3"),
        ([{"rule": "starts_with", "text": " "}], "`text` must be text that is not empty"),
        ([{"rule": "json", "keys": ["a", "a"]}], "`keys` has the same key twice"),
        ([{"rule": "language", "is": "Dutch"}], "`is` must be 'English', 'French'"),
        ([{"rule": "quoted", "exactly": 1}], "`quoted`: there is no field `exactly`"),
    ],
)
def test_what_is_no_constraint_is_refused_in_a_sentence_with_its_line(
    value: Any, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        prompt_tags(Record(place="mine.jsonl:2", fields={"constraints": value}))
    sentence = str(caught.value)
    assert sentence.startswith("mine.jsonl:2: ") and sentence.endswith(".") and "\n" not in sentence
    assert message in sentence


def test_parquet_gives_every_constraint_the_fields_of_all(tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": "a", "constraints": ALL[4:7]}]), file)
    [record] = read_source(str(file), "")
    assert record.fields["constraints"][0]["words"] is None
    assert prompt_tags(record)["constraints"] == text_of(constraints_of(ALL[4:7], "here"))

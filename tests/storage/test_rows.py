"""What Python reads of each relation is what the schema says that it holds."""

import re
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from dapflow.storage import Lake
from dapflow.storage.rows import (
    AcceptanceRow,
    ComparedRow,
    CompletionRow,
    MetricRow,
    ModelRow,
    PairRow,
    PromptRow,
    ScoredRow,
    UndecidedRow,
    is_comparison,
)
from dapflow.storage.schema import MIGRATIONS, NOUNS
from tests.helpers.lakes import Made

RELATIONS: dict[str, list[Any]] = {
    "prompts": [PromptRow],
    "completions": [CompletionRow],
    "verdicts": [ScoredRow, ComparedRow, UndecidedRow],
    "acceptances": [AcceptanceRow],
    "pairs": [PairRow],
    "models": [ModelRow],
    "metrics": [MetricRow],
}
TYPES = {
    "string": str, "bool": bool, "int32": int, "int64": int, "double": float,
    "list<l: string>": list[str], "list<l: int32>": list[int], "list<l: float>": list[float],
}  # fmt: skip
NULLABLE = re.compile(r"^(?:ALTER TABLE (\w+) ADD COLUMN )?\s*(\w+) [A-Z\[\]]+[,;].*-- .*\bnull\b")


def kinds(hint: Any) -> set[Any]:
    """The types that a value may have; a list of words is text."""
    if get_origin(hint) is Literal:
        return {str}
    options = get_args(hint) if NoneType in get_args(hint) or not get_origin(hint) else ()
    return set().union(*map(kinds, options)) if options else {hint}


def hints(noun: str) -> dict[str, set[Any]]:
    """The types of each column, over all kinds of its rows."""
    found: dict[str, set[Any]] = {}
    for row in RELATIONS[noun]:
        for name, hint in get_type_hints(row).items():
            found.setdefault(name, set()).update(kinds(hint))
    return found


def nullable() -> set[tuple[str, str]]:
    """The columns whose description says that they may be null: (noun, column)."""
    found, noun = set[tuple[str, str]](), ""
    for line in "\n".join(MIGRATIONS).splitlines():
        if begun := re.match(r"CREATE TABLE (\w+)", line):
            noun = begun[1]
        if said := NULLABLE.match(line):
            found.add((said[1] or noun, said[2]))
    return found


@pytest.mark.parametrize("noun", NOUNS)
def test_a_row_has_the_columns_of_its_relation_with_their_types(lake: Lake, noun: str) -> None:
    columns = {field.name: {TYPES[str(field.type)]} for field in lake.schema(noun)}
    assert {name: found - {NoneType} for name, found in hints(noun).items()} == columns


def test_what_the_schema_says_may_be_null_may_be_none() -> None:
    described = [(noun, name) for noun, name in nullable() if noun in NOUNS]
    assert len(described) > 12
    assert [pair for pair in described if NoneType not in hints(pair[0])[pair[1]]] == []


def test_each_relation_is_read_as_its_rows_and_a_wrong_one_not_at_all(
    lake: Lake, made: Made
) -> None:
    assert {row["split"] for row in lake.prompts(made["prompts"])} == {"train"}
    assert len(lake.completions(made["completions"])) == 16
    assert not any(is_comparison(row) for row in lake.verdicts(made["verdicts"]))
    assert {row["sweep"] for row in lake.acceptances(made["acceptances"])} >= {0}
    assert [row["dropped"] for row in lake.pairs(made["pairs"])].count(None) == 3
    with pytest.raises(AssertionError, match="holds no pairs"):
        lake.pairs(made["prompts"])

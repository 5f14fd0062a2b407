"""The records of a file of comparisons: .parquet, .csv, .json (an array, or lines), .jsonl, and the
last three as .gz; and what its columns are called.

    for fields in records(path, Names()): fields["output"]
Test: pytest tests/flows/cli/test_winrate.py
"""

import gzip
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dapflow.storage.errors import UserError
from dapflow.tasks.evaluation.winrate.votes import names_a_judge
from dapflow.tasks.prompts.delimited import table_of

FORMS = ".parquet, .csv, .json or .jsonl (the last three also as .gz)"
GENERATOR, INPUT = "generator", "input"
_GZIP = ".gz"


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the columns are called in the file. `generator` None: `generator` if there is one.
    second: of another judge's preference.
    """

    instruction: str = "instruction"
    output: str = "output"
    baseline: str = "baseline"
    preference: str = "preference"
    generator: str | None = None
    second: str | None = None

    def needed(self) -> list[str]:
        """Those that must be there."""
        optional = [name for name in (self.generator, self.second) if name]
        return [self.instruction, self.output, self.baseline, self.preference, *optional]

    def judges(self, there: Iterable[str]) -> list[str]:
        """The columns that say who judged, where it is one preference that is read."""
        return (
            []
            if self.second
            else [name for name in there if name not in self.needed() and names_a_judge(name)]
        )


def records(path: Path, names: Names) -> Iterator[Mapping[str, Any]]:
    *_, before, last = ("", "", *(suffix.lower() for suffix in path.suffixes))
    form = before if last == _GZIP else last
    if last == ".parquet":
        return _parquet(path, names)
    if form not in (".csv", ".json", ".jsonl", ".ndjson"):
        raise UserError(f"{path.name} is of no form that is known here: give {FORMS}.")
    return _decoded(path, form, names)


def _decoded(path: Path, form: str, names: Names) -> Iterator[Mapping[str, Any]]:
    """The records of a text file; what is wrong with the file becomes a sentence."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix.lower() == _GZIP
            else path.open(encoding="utf-8-sig", newline="") as text
        ):
            yield from (
                _csv(text, path.name, names) if form == ".csv" else _json(text, path.name, names)
            )
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    except (EOFError, OSError) as error:  # also gzip's
        raise UserError(f"{path} cannot be read: {error}.") from error


def _csv(text: IO[str], file: str, names: Names) -> Iterator[Mapping[str, Any]]:
    columns, rows = table_of(text, file)
    if columns:
        _require(columns, file, names)
    yield from (row for _, row in rows)


def _json(text: IO[str], file: str, names: Names) -> Iterator[Mapping[str, Any]]:
    content = text.read()
    found = _array(content, file) if content.lstrip().startswith("[") else _lines(content, file)
    columns = set[str]()
    rows = list[Mapping[str, Any]]()
    for number, row in enumerate(found, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f'{file}, row {number}: expected an object such as {{"{names.instruction}": '
                f"...}}, not {type(row).__name__}."
            )
        columns |= row.keys()
        rows.append(row)
    if rows:
        _require(columns, file, names)
    several = {GENERATOR: None} if names.generator is None and GENERATOR in columns else {}
    yield from (
        {**several, **row} for row in rows
    )  # where some rows name their system, one that does not lacks it


def _array(content: str, file: str) -> list[Any]:
    try:
        return json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON ({error}).") from error


def _lines(content: str, file: str) -> Iterator[Any]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{file}:{number}: not valid JSON ({error}).") from error


def _parquet(path: Path, names: Names) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            _require(there, path.name, names)
            more = [*names.judges(there), *([] if names.generator else [GENERATOR]), INPUT]
            wanted = list(
                dict.fromkeys([*names.needed(), *(name for name in more if name in there)])
            )
            for batch in file.iter_batches(10_000, columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}"
        ) from error


def _require(there: Collection[str], file: str, names: Names) -> None:
    if twice := [
        name
        for name, times in Counter(there).items()
        if times > 1 and name in (*names.needed(), GENERATOR)
    ]:
        raise UserError(f"{file} has the column {twice[0]} more than once: which one counts?")
    missing = [name for name in names.needed() if name not in there]
    if missing:
        called = {"preference": "first"} if names.second else {}  # of two judges neither is the one
        options = [
            f"--{called.get(option, option)} NAME"
            for option, name in vars(names).items()
            if name in missing
        ]
        raise UserError(
            f"{file} has no column {' or '.join(missing)} (it has "
            f"{', '.join(sorted(there)) or 'none'}): say which it is with {' '.join(options)}."
        )

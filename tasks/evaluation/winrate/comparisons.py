"""Reads comparisons against a baseline from a file: .parquet, .csv, .json (an array, or lines),
.jsonl, and the last three as .gz.

    instruction, output, baseline, preference (P(output beats baseline), 0 to 1), and optionally generator (which system answered)
A row without one of them is left out and counted; a row that says something impossible is refused
by its number, and so is a file that mixes judges or is on another scale
(dapflow.tasks.evaluation.winrate.votes).
Imports neither torch nor prefect. Test: pytest tests/flows/cli/test_winrate.py
"""

import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dapflow.storage.errors import UserError
from dapflow.tasks.evaluation.winrate.votes import (
    check_judges,
    check_repeated,
    check_scale,
    judge_named,
    names_a_judge,
)
from dapflow.tasks.prompts.columns import instruction_of
from dapflow.tasks.prompts.delimited import table_of

ONLY_SYSTEM = "output"
_GENERATOR, _INPUT = "generator", "input"
_COMMA = " (with a point before its decimals, no comma)"
_GZIP = ".gz"
_FORMS = ".parquet, .csv, .json or .jsonl (the last three also as .gz)"


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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One judged answer. `delta`: how many characters it is longer than the baseline's; `answer`
    and `against` are equal for equal answers.
    """

    system: str
    instruction: str
    answer: int
    delta: int
    preference: float
    second: float | None = None
    against: int = 0

    @property
    def asked(self) -> tuple[str, str, int, int]:
        """What was judged, of whom and against what."""
        return self.system, self.instruction, self.answer, self.against


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What a file holds, and how many rows were left out for want of a column."""

    rows: list[Comparison]
    left_out: Counter[str] = field(default_factory=Counter[str])


def read_comparisons(path: Path, names: Names) -> Comparisons:
    """All rows of the file. Raises UserError for what cannot be read, is not there, or cannot be."""
    if not path.is_file():
        raise UserError(f"There is no file {path}: give {_FORMS}.")
    if twice := [name for name, times in Counter(names.needed()).items() if times > 1]:
        raise UserError(f"Two of the options name the column {twice[0]}: each is another one.")
    rows, numbers, left_out = list[Comparison](), list[int](), Counter[str]()
    judges = defaultdict[str, set[str]](set)
    for number, fields in enumerate(_records(path, names), start=1):
        read = _comparison(fields, names, f"{path.name}, row {number}")
        if isinstance(read, str):
            left_out[read] += 1
        else:
            rows.append(read)
            numbers.append(number)
            for name in names.judges(fields):
                judges[name] |= {
                    judge for judge in [judge_named(fields[name])] if judge is not None
                }
    if not rows and left_out:
        raise UserError(
            f"No row of {path.name} has all of {', '.join(names.needed())}: there is nothing to average."
        )
    if not rows:
        raise UserError(
            f"{path.name} is empty: it needs at least one row of {', '.join(names.needed())}."
        )
    check_scale([row.preference for row in rows], numbers, names.preference, path.name)
    if names.second is None:
        check_judges(judges, path.name)
        check_repeated(rows, numbers, path.name)
    else:
        check_scale(
            [row.second for row in rows if row.second is not None], numbers, names.second, path.name
        )
    return Comparisons(rows=rows, left_out=left_out)


def _comparison(fields: Mapping[str, Any], names: Names, place: str) -> Comparison | str:
    """The row, or the name of the column that is missing in it."""
    system = fields.get(names.generator or _GENERATOR, ONLY_SYSTEM)
    values = {name: fields.get(name) for name in names.needed()} | {
        names.generator or _GENERATOR: system
    }
    for name, value in values.items():
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return name
    preference = _number(values[names.preference], names.preference, place)
    second = None if names.second is None else _number(values[names.second], names.second, place)
    if preference is None:
        return names.preference
    if names.second is not None and second is None:
        return names.second
    output, baseline = (_text(values[name], name, place) for name in (names.output, names.baseline))
    return Comparison(
        system=str(system),
        instruction=str(instruction_of(fields, names.instruction)),
        answer=hash(output),
        against=hash(baseline),
        delta=len(output) - len(baseline),
        preference=preference,
        second=second,
    )


def _text(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: `{name}` must be text, not {type(value).__name__}.")
    return value


def _number(value: Any, name: str, place: str) -> float | None:
    """A finite number; None where a text says that there is none."""
    if isinstance(value, str) and not value.strip():
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{place}: `{name}` must be a number from 0 to 1, not {str(value)[:40]!r}{_COMMA if ',' in str(value) else ''}."
        ) from None
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise UserError(
            f"{place}: `{name}` is {number}, but must be the probability, from 0 to 1, that the output beats the baseline."
        )
    return number


def _records(path: Path, names: Names) -> Iterator[Mapping[str, Any]]:
    *_, before, last = ("", "", *(suffix.lower() for suffix in path.suffixes))
    form = before if last == _GZIP else last
    if last == ".parquet":
        return _parquet(path, names)
    if form not in (".csv", ".json", ".jsonl", ".ndjson"):
        raise UserError(f"{path.name} is of no form that is known here: give {_FORMS}.")
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
                f'{file}, row {number}: expected an object such as {{"{names.instruction}": ...}}, not {type(row).__name__}.'
            )
        columns |= row.keys()
        rows.append(row)
    if rows:
        _require(columns, file, names)
    several = {_GENERATOR: None} if names.generator is None and _GENERATOR in columns else {}
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
            more = [*names.judges(there), *([] if names.generator else [_GENERATOR]), _INPUT]
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
        if times > 1 and name in (*names.needed(), _GENERATOR)
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
            f"{file} has no column {' or '.join(missing)} (it has {', '.join(sorted(there)) or 'none'}): say which it is with {' '.join(options)}."
        )

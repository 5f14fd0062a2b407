"""A file of answers that somebody is to judge, one or two a row: .parquet, .jsonl, .json or .csv
(the last three also as .gz).

    sheet_of(path)  ->  Sheet          prompts_of_sheet(sheet), answers_of_sheet(sheet, column, prompts)  ->  prompts, completions
Columns: `prompt` (or `instruction`), and `completion` (or `response`, `output`); or a pair:
`chosen` and `rejected`, `output` and `baseline`, `first` and `second`. Test: pytest
tests/flows/judges/test_judge_file.py
"""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from dapflow.storage import DatasetRef, UserError
from dapflow.tasks.prompts.delimited import table_of
from dapflow.tasks.prompts.load import prompt_tags, prompt_text
from dapflow.tasks.prompts.row import prompt_row
from dapflow.tasks.prompts.sources import Record, stream_source
from dapflow.tasks.step import Out, step

_PAIRS = (("chosen", "rejected"), ("output", "baseline"), ("first", "second"))
_ALONE = (("completion",), ("response",), ("output",))
_FORMS = ".parquet, .jsonl, .json or .csv (the last three also as .gz)"
_CHUNK = 10_000


class Sheet(BaseModel):
    """A file, the digest of its content, and which of its columns are to be judged: of two, the
    first against the second.
    """

    model_config = ConfigDict(frozen=True)
    MACHINE: ClassVar[dict[str, Any]] = {"path": True}  # where it lies decides nothing
    path: str
    digest: str
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return Path(self.path).name


def sheet_of(path: Path) -> Sheet:
    """The file, every row of which has been looked at. Raises UserError, naming the row, for what
    cannot be judged.
    """
    records = read_sheet(path)
    if not records:
        raise UserError(
            f"{path} is empty: it needs at least one row with `prompt` and `completion`."
        )
    names = records[0].fields.keys()
    forms: tuple[tuple[str, ...], ...] = (*_PAIRS, *_ALONE)
    found = [form for form in forms if set(form) <= names]
    if not found:
        raise UserError(
            f"{records[0].place}: there is nothing to judge in "
            f"{', '.join(names) or 'no columns'}: it needs `prompt` with `completion`, or with "
            "`chosen` and `rejected` (or `output` and `baseline`, `first` and `second`)."
        )
    for record in records:
        prompt_text(record)
        prompt_tags(record)
        for column in found[0]:
            if not isinstance(record.fields.get(column), str):
                raise UserError(
                    f"{record.place}: `{column}` must be text, not "
                    f"{record.fields.get(column)!r:.40}."
                )
    with path.open("rb") as content:
        return Sheet(
            path=str(path),
            digest=hashlib.file_digest(content, "sha256").hexdigest()[:16],
            columns=found[0],
        )


def read_sheet(path: Path) -> list[Record]:
    """Its rows. Raises UserError for what cannot be read."""
    packed = path.suffix.lower() == ".gz"
    form = (path.with_suffix("") if packed else path).suffix.lower()
    if not path.is_file():
        raise UserError(f"There is no file {path}: give {_FORMS}.")
    if form in (".parquet", ".jsonl", ".ndjson", ".json"):
        return list(stream_source(str(path), ""))
    if form != ".csv":
        raise UserError(f"{path.name} is of no form that is known here: give {_FORMS}.")
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if packed
            else path.open(encoding="utf-8-sig", newline="") as text
        ):
            return list(_csv(text, path.name))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    except (EOFError, OSError) as error:  # also gzip's
        raise UserError(f"{path} cannot be read: {error}.") from error


@step(
    "prompts",
    title="prompts of {sheet}",
    expects=lambda sheet, **_: len(read_sheet(Path(sheet.path))),
    activity="loading",
)
def prompts_of_sheet(out: Out, sheet: Sheet) -> None:
    """The prompt of each row."""
    rows = [
        prompt_row(out.row_id(n), prompt_text(record), record.place) | prompt_tags(record)
        for n, record in enumerate(read_sheet(Path(sheet.path)))
    ]
    _write(out, rows)


@step(
    "completions",
    title="{column} of {sheet}",
    expects=lambda prompts, **_: prompts.rows,
    activity="loading",
)
def answers_of_sheet(out: Out, sheet: Sheet, column: str, prompts: DatasetRef) -> None:
    """The answer of each row in that column."""
    rows = [
        {
            "id": out.row_id(n),
            "prompt_id": prompt["id"],
            "sample": 0,
            "text": record.fields[column],
            "finish_reason": "stop",
        }
        for n, (prompt, record) in enumerate(
            zip(out.lake.prompts(prompts), read_sheet(Path(sheet.path)), strict=True)
        )
    ]
    _write(out, rows)


def _write(out: Out, rows: list[dict[str, Any]]) -> None:
    for number, chunk in out.missing(
        [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    ):
        out.write(number, chunk)


def _csv(text: IO[str], file: str) -> Iterator[Record]:
    yield from (Record(place=place, fields=row) for place, row in table_of(text, file)[1])

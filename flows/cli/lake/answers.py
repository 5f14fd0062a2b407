"""How the answer to a query is printed: as a table for a person, or raw, row after row as it comes,
as csv, json or parquet.
"""

import json
import sys
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from dapflow.flows.display.cells import cell, table_of
from dapflow.storage.asking import Question, identifier
from dapflow.storage.errors import UserError

_LONGEST = 300  # characters of a value in a table: the engine hands over no more of it
_NO_PARQUET = ("INTERVAL", "UNION", "VARIANT")  # Arrow writes none of these into Parquet


def print_table(console: Console, asked: Question, limit: int) -> None:
    """The first `limit` rows."""
    select = ", ".join(_for_table(place, kind) for place, kind in enumerate(asked.types))
    rows = [row for batch in asked.rows(select, limit + 1) for row in _rows(batch)]
    table = table_of()
    for name in asked.names:
        table.add_column(
            Text(cell(name, _LONGEST)),
            overflow="fold",
            no_wrap=name in ("kind", "version", "state"),
        )
    for row in rows[:limit]:
        table.add_row(
            *(
                Text("NULL", "dim") if value is None else Text(cell(value, _LONGEST))
                for value in row
            )
        )
    console.print(table)
    console.print(
        f"the first {limit:,} rows; --limit or --format csv for more"
        if len(rows) > limit
        else f"{len(rows):,} rows",
        highlight=False,
    )


def print_raw(asked: Question, form: str) -> None:
    """All rows on standard output, as csv, json or parquet."""
    if form == "parquet":
        _write_parquet(asked)
        return
    for line in _csv(asked) if form == "csv" else _json(asked):
        sys.stdout.write(line)
    sys.stdout.flush()


def _for_table(place: int, kind: str) -> str:
    return (
        f"c{place}" if kind in ("DOUBLE", "FLOAT") else f"left(c{place}::VARCHAR, {_LONGEST + 1})"
    )


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _csv(asked: Question) -> Iterator[str]:
    yield ",".join(map(_csv_cell, asked.names)) + "\n"
    for batch in asked.rows(asked.as_text()):
        for row in _rows(batch):
            yield ",".join("" if value is None else _csv_cell(str(value)) for value in row) + "\n"


def _csv_cell(text: str) -> str:
    """RFC 4180; an empty text is quoted, and null is not."""
    plain = text and not any(letter in text for letter in ',"\n\r')
    return text if plain else '"' + text.replace('"', '""') + '"'


def _json(asked: Question) -> Iterator[str]:
    begin = "[\n\t"
    for batch in asked.rows(asked.as_json()):
        for text in batch.column(0).to_pylist():
            yield begin + _finite(text)
            begin = ",\n\t"
    yield "[]\n" if begin[0] == "[" else "\n]\n"


def _finite(text: str) -> str:
    """JSON as it is, but null for NaN and the infinities, which DuckDB writes and JSON does not
    have.
    """
    if "NaN" not in text and "Infinity" not in text:
        return text
    return json.dumps(
        json.loads(text, parse_constant=lambda _: None), ensure_ascii=False, separators=(",", ":")
    )


def _write_parquet(asked: Question) -> None:
    columns = (
        f"c{place}::VARCHAR" if any(one in kind for one in _NO_PARQUET) else f"c{place}"
        for place, kind in enumerate(asked.types)
    )
    select = ", ".join(
        f"{column} AS {name}"
        for column, name in zip(columns, map(identifier, asked.names), strict=True)
    )
    reader = asked.reader(select)
    try:
        with pq.ParquetWriter(sys.stdout.buffer, reader.schema) as writer:
            for batch in asked.batches(reader):
                writer.write_batch(batch)
    except pa.ArrowNotImplementedError as error:
        raise UserError(
            f"Parquet has no place for a column of the answer ({error}): cast it to VARCHAR, or "
            "use --format csv."
        ) from error
    sys.stdout.buffer.flush()

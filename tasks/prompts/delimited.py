"""Tables as text: what separates the fields, a comma, a semicolon (as spreadsheets write it where a
comma is the decimal sign) or a tab.

    table_of(text, "a.csv")  ->  its columns, and its rows as (place, row); the sign is the one that is most often in the header
Imports neither torch nor prefect. Test: pytest tests/flows/judges/test_judge_file.py
tests/flows/cli/test_winrate.py
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Any

from dapflow.storage.errors import UserError

_SIGNS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}


def table_of(
    text: IO[str], file: str
) -> tuple[Sequence[str], Iterator[tuple[str, dict[str, Any]]]]:
    """Columns (none of an empty file) and rows, however long a field is. Raises UserError, naming
    the line, for what is no table.
    """
    csv.field_size_limit(2**31 - 1)
    header = text.readline()
    sign = max(_SIGNS, key=header.count)
    reader = csv.DictReader(chain([header] if header else [], text), delimiter=sign)
    try:
        return reader.fieldnames or [], _rows(reader, file, _SIGNS[sign])
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: not valid CSV ({error}).") from error


def _rows(
    reader: "csv.DictReader[str]", file: str, sign: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for row in reader:
            if (
                None in row
            ):  # what follows the last column: part of an answer would be judged as the whole of it
                raise UserError(
                    f"{file}:{reader.line_num}: more fields than the header has columns: put text "
                    f"with {sign} into quotes."
                )
            yield f"{file}:{reader.line_num}", row
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: not valid CSV ({error}).") from error

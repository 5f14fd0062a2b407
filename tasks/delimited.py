"""Tables as text: what separates the fields, a comma, a semicolon (as spreadsheets write it where a comma is the decimal sign) or a tab.

    table_reader(text)  ->  csv.DictReader, by the header: the sign that is there most often
Imports neither torch nor prefect. Test: pytest tests/flows/test_judge_file.py tests/flows/test_winrate.py
"""

import csv
from itertools import chain
from typing import IO


def table_reader(text: IO[str]) -> "csv.DictReader[str]":
    """Its rows by the names in the header, however long a field is."""
    csv.field_size_limit(2**31 - 1)
    header = text.readline()
    return csv.DictReader(chain([header] if header else [], text), delimiter=max(",;\t", key=header.count))

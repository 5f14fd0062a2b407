"""The project's Markdown files, taken apart: code blocks, commands, tables, links, headings.

table(FILES["README.md"], "extra")       the rows below the header cell `extra`, a dict each
list(commands(FILES["README.md"]))       the words of every `dapflow` line in its code blocks
"""

import re
import shlex
from collections.abc import Iterator
from itertools import groupby

from tests.helpers import ROOT

MANUALS = (
    "README.md",
    "CONTRIBUTING.md",
    *(
        f"{folder}/README.md"
        for folder in (
            "flows", "flows/report", "tasks", "tasks/judging", "tasks/sampling", "tasks/training",
            "storage", "deployments", "tests",
        )
    ),
)  # fmt: skip
"""What people read to use or to change the project."""
OTHERS = ("CHANGELOG.md", "deployments/SCALING.md", "deployments/LICENCES.md")
FILES = {name: (ROOT / name).read_text("utf-8") for name in (*MANUALS, *OTHERS)}
_DAPFLOW = re.compile(r"(?:\S*/bin/)?dapflow (?=[a-z-])")
Table = list[dict[str, str]]


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is code: between fences, or indented below an empty line."""
    fenced = indented = False
    before = ""
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            indented = line.startswith("    ") and (indented or not before)
        yield line, fenced or indented
        before = line


def blocks(text: str) -> Iterator[list[str]]:
    """The code blocks, without indentation and fences."""
    for code, block in groupby(lines(text), key=lambda pair: pair[1]):
        if code:
            yield [line.removeprefix("    ") for line, _ in block if not line.startswith("```")]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `dapflow` line in the code blocks, the command itself left out."""
    for block in blocks(text):
        for line in "\n".join(block).replace("\\\n", " ").splitlines():
            if start := _DAPFLOW.match(line):
                yield shlex.split(line[start.end() :], comments=True)


def tables(text: str) -> Iterator[Table]:
    """Every table, its rows by the cells of its header."""
    for is_table, block in groupby(lines(text), key=lambda pair: pair[0].startswith("|")):
        if is_table:
            header, _, *rows = [_cells(line) for line, _ in block]
            yield [dict(zip(header, row, strict=True)) for row in rows]


def table(text: str, column: str) -> Table:
    """The table whose header begins with this cell; there must be exactly one."""
    [matching] = [rows for rows in tables(text) if next(iter(rows[0])) == column]
    return matching


def names(rows: Table, column: str) -> list[str]:
    """What stands as code in a column."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[column])]


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures that lead to files of the project."""
    for line, code in lines(text):
        if not code:
            targets = re.findall(r"\]\(([^)\s]+)\)", line)
            yield from (target for target in targets if "://" not in target)


def anchors(text: str) -> set[str]:
    """What a link to a heading may end in."""
    headings = [line.lstrip("#") for line, code in lines(text) if line.startswith("#") and not code]
    return {
        re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]

"""Text in Markdown: what a model, a file, a server or a name says is shown as it is, so that no
page fetches or links anything for it.

    as_text(value)              in a sentence or a heading, on one line
    as_quotation(value)         line by line
    as_table(header, rows)      every cell is text, but for `Markdown`, which is our own
Test: pytest tests/tasks/test_markdown.py; in Prefect's UI: pytest -m browser
tests/deployments/test_canary.py
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_LINE, _QUOTATION, _CELL = 500, 1_000, 300  # characters
_PUNCTUATION = re.compile(
    r"[!-/:-@\[-`{-~]"
)  # all that can mean something to Markdown: any of it may stand behind a backslash
_HIDDEN = (
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
)  # control, format (of direction, of no width), surrogates, separators of lines
_OF_SCRIPTS = "\u200c\u200d"  # joiners, without which Persian, Hindi and many emoji are misspelt


class Markdown(str):
    """Markdown of our own, in which all else is text already."""

    __slots__ = ()


def as_text(value: object, most: int = _LINE) -> Markdown:
    """On one line."""
    return _shown(" ".join(cut(str(value), most).split()))


def as_quotation(value: str, most: int = _QUOTATION) -> Markdown:
    """As a quotation that keeps its lines and what they are indented by."""
    lines = cut(value, most).replace("\r\n", "\n").split("\n")
    return Markdown("\n".join(f"> {_indented(line)}" for line in lines))


def as_table(
    header: Sequence[str], rows: Iterable[Iterable[object]], most: int = _CELL
) -> Markdown:
    """A table, of whatever its cells say."""
    lines = [[_cell(value, most) for value in row] for row in (header, *rows)]
    lines.insert(1, [Markdown("---")] * len(header))
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def cut(value: str, most: int) -> str:
    """The beginning of a text that is too long."""
    return value if len(value) <= most else value[: most - 3] + "..."


def visible(value: str) -> str:
    """The text with a sign for each character that is not seen: it may hide what stands there, or
    turn its order round.
    """
    return "".join(_sign(character) for character in value)


def _shown(value: str) -> Markdown:
    return Markdown(_PUNCTUATION.sub(r"\\\g<0>", visible(value)))


def _indented(line: str) -> str:
    """Four spaces at the beginning would make code of a line, in which a backslash is shown."""
    rest = line.lstrip()
    return "\N{NO-BREAK SPACE}" * (len(line) - len(rest)) + _shown(rest)


def _cell(value: object, most: int) -> Markdown:
    if isinstance(value, Markdown):
        return value
    return as_text(
        "" if value is None else f"{value:.4g}" if isinstance(value, float) else value, most
    )


def _sign(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _OF_SCRIPTS:
        return character
    code = ord(character)
    return chr(0x2400 + code) if code < 32 else f"<U+{code:04X}>"

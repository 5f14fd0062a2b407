"""The terminal: what is printed there of models, data and servers is text. Control characters are
shown instead of being obeyed, and `[bold]` in a name, a title or an answer is no markup.

    Screen().print(table)          rich's console: what is to be bold or dim is a `Text` with a style
    say(f"judged by {name}")       one line
Test: pytest tests/flows/cli/test_screen.py
"""

import io
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_HIDDEN = {
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
}  # Unicode's categories: control, format (bidi, zero width), surrogate, line and paragraph
_LAYOUT = "\n\t"


def visible(text: str) -> str:
    """`text` with a sign in place of every character that a terminal obeys or does not show: ESC is
    \u241b, U+202E is <U+202E>.
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def _sign(letter: str) -> str:
    code = ord(letter)
    if letter in _LAYOUT or unicodedata.category(letter) not in _HIDDEN:
        return letter
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"<U+{code:04X}>"


class Screen(Console):
    """rich's console, on which no string is markup and no `:word:` an emoji."""

    def __init__(
        self, *, stderr: bool = False, file: TextIO | None = None, highlight: bool = True
    ) -> None:
        super().__init__(stderr=stderr, file=file, highlight=highlight, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of what is printed; rich's own control codes are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def say(text: Any, file: TextIO | None = None) -> None:
    """One line on standard output, or where `file` says."""
    print(visible(str(text)), file=file or sys.stdout, flush=True)


def print_anything() -> None:
    """From now on a character that the terminal's encoding does not have is printed as its number,
    \\u2265 say, and ends nothing.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

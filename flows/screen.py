"""The terminal: what is printed there of models, data and servers shows its control characters, instead of being obeyed.

Screen().print(table)          rich's console
say(f"judged by {name}")       one line
"""

import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories: control, format (bidi, zero width), surrogate, line and paragraph
_LAYOUT = "\n\t"


def visible(text: str) -> str:
    """`text` with a sign in place of every character that a terminal obeys or does not show: ESC is \u241b, U+202E is <U+202E>."""
    return text if text.isprintable() else "".join(map(_sign, text))


def _sign(letter: str) -> str:
    code = ord(letter)
    if letter in _LAYOUT or unicodedata.category(letter) not in _HIDDEN:
        return letter
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"<U+{code:04X}>"


class Screen(Console):
    """rich's console, whatever it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed; rich's own control codes are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def say(text: Any, file: TextIO | None = None) -> None:
    """One line on standard output, or where `file` says."""
    print(visible(str(text)), file=file or sys.stdout, flush=True)

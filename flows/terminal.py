"""The terminal that commands print on. What they print is text: a name, a title or an answer with `[bold]` in it is shown as it is.

Test: pytest tests/flows/test_terminal.py
"""

import io
import sys

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """A console on which no string is markup and no `:word:` an emoji: what is to be bold or dim is a `Text` with a style."""
    return Console(stderr=stderr, markup=False, emoji=False)


def print_anything() -> None:
    """From now on a character that the terminal's encoding does not have is printed as its number, \\u2265 say, and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

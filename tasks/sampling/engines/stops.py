"""Stop strings: where a completion ends because of its text, not of a token. Test: pytest
tests/tasks/sampling/engines/test_transformers.py
"""

from collections.abc import Sequence
from typing import Any


class Stops:
    """The strings that end a completion. False where there are none."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self.tail = (
            max((len(stop.encode()) for stop in self._stops), default=0) + 1
        )  # tokens that may hold a stop: each has a byte or more

    def __bool__(self) -> bool:
        return bool(self._stops)

    def reached(self, last: Sequence[int]) -> bool:
        """Whether the last `tail` tokens of a completion hold one."""
        text = self._tokenizer.decode(
            last, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return any(stop in text for stop in self._stops)

    def cut(self, text: str) -> str:
        """What comes before the first of them."""
        return text[
            : min(
                (place for stop in self._stops if (place := text.find(stop)) >= 0),
                default=len(text),
            )
        ]

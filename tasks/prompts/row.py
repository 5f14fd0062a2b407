"""A prompt as a row of the lake: what recognises it, its text, and where it came from.

    prompt_row(out.row_id(0), "Name three fruits.", "mine.jsonl, line 1", split="train")
Test: pytest tests/tasks/prompts/test_load.py
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from dapflow.storage.rows import Split


def prompt_row(
    row_id: str,
    text: str,
    source: str,
    *,
    split: Split | None = None,
    parents: Sequence[str] = (),
) -> dict[str, Any]:
    """The row of a prompt that is a first turn.

    text: the user's turn
    source: where it came from
    split: None where nobody trains on a part of the prompts and measures on the other
    parents: ids of the prompts that it was made from
    """
    return {
        "id": row_id,
        "digest": text_digest(text),
        "prompt": text,
        "source": source,
        "split": split,
        "parents": list(parents),
    }


def text_digest(text: str) -> str:
    """Sixteen hexadecimal digits that recognise a text across versions."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Columns that belong to the prompt: joined where a form defines it (Alpaca's `input`), else
refused by name, for left aside they would be lost.

    instruction_of(fields)              ->  "Add the numbers.\\n\\n14 and 28": the instruction, a blank line, the input
    check_columns(fields, prompt, place)    raises UserError for a column such as `system`, `context` or `history` that says something
Empty ones, numbers, names and ids say nothing. Imports neither torch nor prefect. Test: pytest
tests/tasks/prompts/test_columns.py
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dapflow.storage.errors import UserError

_WORDS = frozenset(  # of a column's name
    [
        "system",
        "sys",
        "preamble",
        "persona",
        "instructions",
        "history",
        "previous",
        "prior",
        "earlier",
        "past",
        "messages",
        "conversation",
        "conversations",
        "dialog",
        "dialogue",
        "turns",
        "context",
        "contexts",
        "passage",
        "passages",
        "document",
        "documents",
        "paragraph",
        "paragraphs",
        "article",
        "background",
        "knowledge",
        "evidence",
        "input",
        "inputs",
        "demonstrations",
        "tools",
        "functions",
        "image",
        "images",
        "audio",
        "video",
    ]
)
# what such a name says instead, at its end: what the text is called or where it is from
_ABOUT = frozenset(
    [
        "id",
        "ids",
        "name",
        "names",
        "source",
        "type",
        "kind",
        "hash",
        "url",
        "link",
        "title",
        "model",
        "lang",
        "language",
        "length",
        "count",
        "tokens",
        "score",
        "scores",
    ]
)
_ANSWERS = frozenset(["chosen", "rejected", "answer", "response", "completion", "output"])
_ASKED = ("instruction", "question", "query")  # beside a `prompt` that is something else
_CONVERSATIONS = frozenset({"messages", "conversation", "conversations", "dialog", "dialogue"})
_NO_INPUT = "<noinput>"  # as Alpaca's first files write it


@lru_cache(1024)
def normal(name: str) -> str:
    """A column's name as others write it: systemPrompt, System-Prompt and `system prompt` are
    system_prompt.
    """
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip(
        "_"
    )


def instruction_of(fields: Mapping[str, Any], name: str = "instruction") -> Any:
    """The instruction, with what Alpaca's form keeps in `input` below it."""
    instruction, more = fields.get(name), fields.get("input")
    joined = (
        name == "instruction"
        and isinstance(instruction, str)
        and isinstance(more, str)
        and _says(more)
    )
    return f"{instruction}\n\n{more}" if joined else instruction


def check_columns(fields: Mapping[str, Any], prompt: str, place: str) -> None:
    """Raise UserError, naming the column, where one that belongs to the prompt says what the prompt
    does not.
    """
    for name, value in fields.items():
        if (
            _belongs(normal(name), fields)
            and _says(value)
            and not _holds(prompt, value, normal(name))
        ):
            raise UserError(
                f"{place}: the column `{name}` belongs to the prompt and would be lost, for a "
                "prompt is one text of the user's: put it into"
                " `prompt`, or take the column out (or give it another name) where the prompt "
                "needs nothing of it."
            )


def _belongs(name: str, fields: Mapping[str, Any]) -> bool:
    if name in _ASKED:
        return name != "instruction" or "prompt" in fields
    words = name.split("_")
    return not _WORDS.isdisjoint(words) and _ANSWERS.isdisjoint(words) and words[-1] not in _ABOUT


def _says(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and value.strip().lower() != _NO_INPUT
    if isinstance(value, Mapping):
        return any(_says(each) for each in value.values())
    return isinstance(value, list) and any(_says(each) for each in value)


def _holds(prompt: str, value: Any, name: str) -> bool:
    """Whether the prompt has the text as lines of its own, or is what the conversation begins with."""
    if isinstance(value, str):
        return re.search(rf"(?:\A|\n)\s*{re.escape(value.strip())}\s*(?:\n|\Z)", prompt) is not None
    first = value[0] if isinstance(value, list) and name in _CONVERSATIONS else None
    return isinstance(first, Mapping) and first.get("content", first.get("value")) == prompt

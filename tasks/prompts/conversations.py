"""Who says what: a text, a transcript or messages become turns, told by the speakers' names; only
one turn of the user's is a prompt.

    turns_of([{"role": "user", "content": "Hi"}], "prompt", place)  ->  [("user", "Hi")]
    prompt_turns(record)  ->  the turns of `prompt` (or `instruction`)        why_left_out(turns)  ->  "several_turns", "system_prompt" or None
Test: pytest tests/tasks/prompts/test_conversations.py
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dapflow.storage import UserError
from dapflow.tasks.prompts.columns import instruction_of
from dapflow.tasks.prompts.sources import Record

Turn = tuple[str, str]  # the speaker's role and the text
_ROLES = {"human": "user", "prompter": "user", "developer": "system"} | dict.fromkeys(
    ("gpt", "chatgpt", "bot", "model", "ai"), "assistant"
)
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|User|Assistant|System):")
_NAMES = ("prompt", "instruction")
_LISTS = (
    "conversations",
    "conversation",
    "messages",
)  # which are the prompt where none of those is
WHY = {
    "several_turns": "it is a conversation of several turns, and a prompt is one turn of the user's",
    "system_prompt": "it has a system message, and a prompt is one turn of the user's",
}


def prompt_turns(record: Record) -> list[Turn]:
    """The turns of a record's `prompt`, or of its `instruction` with `input`, else of its
    `conversations`; none where it is empty.

    Raises UserError for what is no text.
    """
    given = [name for name in _NAMES if name in record.fields] or [
        name for name in _LISTS if isinstance(record.fields.get(name), list)
    ]
    name = next(
        (name for name in given if record.fields[name] is not None),
        given[0] if given else _NAMES[0],
    )
    value = instruction_of(record.fields, name)
    if value is None and given:
        return []
    if isinstance(value, list | Mapping):
        return turns_of(value, name, record.place)
    if not isinstance(value, str):
        record.text(*_NAMES)  # which says what it is, or that there is none
        raise UserError(f"{record.place}: `{name}` must be text or a list of messages.")
    return transcript(value) or ([("user", value)] if value.strip() else [])


def one_turn(record: Record) -> str:
    """The prompt of a record, which must be one turn of the user's. Raises UserError, naming the
    record, where it is not.
    """
    turns = essential(prompt_turns(record))
    if reason := why_left_out(turns):
        raise UserError(
            f"{record.place}: this prompt cannot be taken: {WHY[reason]}. Take the row out, or "
            "write it as one text."
        )
    if not turns:
        raise UserError(
            f"{record.place}: "
            f"`{next(name for name in (*_NAMES, *_LISTS) if name in record.fields)}` must be a "
            "non-empty string."
        )
    return turns[0][1]


def turns_of(value: Any, name: str, place: str) -> list[Turn]:
    """The turns of messages (`role` and `content`, or `from` and `value`). Raises UserError for
    what is none.
    """
    messages = [value] if isinstance(value, Mapping) else value
    turns = list[Turn]()
    for message in messages if isinstance(messages, list) else [None]:
        role = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
        text = (
            _text(message.get("content", message.get("value")))
            if isinstance(message, Mapping)
            else None
        )
        if not isinstance(role, str) or text is None:
            raise UserError(
                f"{place}: `{name}` must be text or a list of messages with `role` and `content`, "
                "which is text."
            )
        turns.append((_ROLES.get(role.lower(), role.lower()), text))
    return turns


def _text(content: Any) -> str | None:
    """The text of a message, of its parts together; none of null; None for what is no text, such as
    a picture.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    parts: list[Any] = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else None


def transcript(text: str) -> list[Turn] | None:
    """The turns of "Human: ...\\n\\nAssistant: ..."; None where the text does not begin with the
    human's or the system's, or nobody answers.
    """
    marks = list(_SPEAKER.finditer(text))
    speakers = [mark[1] for mark in marks]
    if (
        not marks
        or marks[0].start() != 0
        or speakers[0] == "Assistant"
        or "Assistant" not in speakers
    ):
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    roles = [_ROLES.get(name.lower(), name.lower()) for name in speakers]
    return [
        (role, text[mark.end() : end].strip())
        for role, mark, end in zip(roles, marks, ends, strict=True)
    ]


def essential(turns: Sequence[Turn]) -> list[Turn]:
    """Without system messages that say nothing, and without the empty turn at the end that the
    answer belongs into.
    """
    kept = [(role, text) for role, text in turns if text.strip() or role != "system"]
    return kept[:-1] if kept and kept[-1][0] == "assistant" and not kept[-1][1].strip() else kept


def why_left_out(turns: Sequence[Turn]) -> str | None:
    """Why these turns are no prompt; None where there is one, which is the user's, or none."""
    roles = [role for role, _ in turns]
    if "system" in roles:
        return "system_prompt"
    return None if roles in ([], ["user"]) else "several_turns"


def shown(turns: Sequence[Turn]) -> str:
    """One turn as it is; several as JSON of messages, which nobody takes for one."""
    if why_left_out(turns) is None:
        return "".join(text for _, text in turns)
    return json.dumps([{"role": role, "content": text} for role, text in turns], ensure_ascii=False)

"""A chat message of a server as it comes: what the model answers, and what it only thought.

    message_of({"content": "<think>Which is it?</think>Better: 1"})  ->  Message(answer="Better: 1", thought="Which is it?")
Test: pytest tests/tasks/servers/test_message.py
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = "think|thinking|thought|thoughts|reasoning|seed:think|scratchpad"
_OPENING = rf"(?:<\s*(?:{_NAMES})\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>)"
_CLOSING = rf"(?:<\s*/\s*(?:{_NAMES})\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>)"
_TAG = re.compile(f"{_OPENING}|{_CLOSING}", re.IGNORECASE)
# of a text that holds thoughts, as an SQL function takes it too
MARKS = rf"(?i){_TAG.pattern}|<\|channel\|>"
_THOUGHT = re.compile(rf"{_OPENING}(.*?){_CLOSING}", re.DOTALL | re.IGNORECASE)
_ENDED_ONLY = re.compile(
    rf"^(.*){_CLOSING}", re.DOTALL | re.IGNORECASE
)  # the chat template has written the opening tag
_BEGUN_ONLY = re.compile(rf"{_OPENING}(.*)$", re.DOTALL | re.IGNORECASE)  # cut off amid the thought
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|start|channel)\|>|$)",
    re.DOTALL,
)
_REASONING = ("reasoning_content", "reasoning", "thinking")  # vLLM and DeepSeek; OpenRouter; Ollama


@dataclass(frozen=True, kw_only=True)
class Message:
    """answer: None where the server gave no text at all; thought: empty where it told none."""

    answer: str | None
    thought: str = ""


def message_of(message: Mapping[str, Any]) -> Message:
    """The answer in a chat message: a text, or the text parts of a list; thoughts between tags, in
    parts or in fields of their own are apart.

    Raises TypeError for content that is neither.
    """
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [content]
    answers = [text for part in parts if (text := _text(part)) is not None]
    thoughts = [text for name in _REASONING if isinstance(text := message.get(name), str)][:1]
    thoughts += [
        text
        for part in parts
        if isinstance(part, Mapping)
        and isinstance(text := part.get("thinking", part.get("reasoning")), str)
    ]
    if not answers:
        return Message(answer=None, thought="\n".join(thoughts))
    thought, answer = split_thought("".join(answers))
    return Message(answer=answer, thought="\n".join(filter(None, (*thoughts, thought))))


def split_thought(text: str) -> tuple[str, str]:
    """What a text holds of thoughts, and the text without them. A thought that does not end takes
    the rest of the text.
    """
    if channels := _CHANNEL.findall(text):
        thoughts = [text for name, text in channels if name != "final"]
        return "\n".join(thoughts).strip(), "\n".join(
            text for name, text in channels if name == "final"
        ).strip()
    if not _TAG.search(text):
        return "", text
    thoughts = list[str]()
    for pattern in (_THOUGHT, _ENDED_ONLY, _BEGUN_ONLY):
        thoughts += pattern.findall(text)
        text = pattern.sub("", text)
    return "\n".join(thought.strip() for thought in thoughts).strip(), text.strip()


def _text(part: Any) -> str | None:
    """The text of a part of a message; None for a part that is none: a thought, a picture."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise TypeError(f"a message of {type(part).__name__}")
    text = part.get("text")
    return (
        text
        if isinstance(text, str) and part.get("type", "text") in ("text", "output_text")
        else None
    )

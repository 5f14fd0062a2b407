"""What of a judge's reply is the judge's own voice: neither thought, nor code, nor a quotation, nor
the material that it was given.

    own_lines("**Better: 1**\\n> Better: 2")  ->  ["Better: 1"]
Test: pytest tests/tasks/judging/replies/test_parsing.py
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from dapflow.tasks.judging.replies.claims import LABEL
from dapflow.tasks.servers.message import split_thought

_MATERIAL = re.compile(  # between tags, between brackets that begin and end it, and between rules
    r"<\s*(question|prompt|instruction|context|answer_\d|completion(?:_\d)?|response(?:_\d)?)\s*>.*?(?:<\s*/\s*\1\s*>|\Z)"
    r"|^[ \t]*\[\s*((?:response|answer|completion)\s*[12]?)\s*\].*?\[\s*(?:/|end\s+(?:of\s+)?)\s*\2\s*\]"
    r"|^[ \t]*(-{3,}|={3,})\s*(?:response|answer|completion)\s*[12]?\s*\3[ \t]*\n.*?(?:^[ \t]*\3|\Z)",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(
    r"^[^\n`\"'~]*?(```+|~~~+|\"\"\"|''')[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_ONE_FENCE = re.compile(r"\s*(```+|~~~+)\w*[ \t]*\n(.*?)\n[ \t]*\1\s*", re.DOTALL)
_LAST_FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)(?:json)?[ \t]*\n([^`~]*?)\n[ \t]*\1\s*\Z",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_INTRODUCED = re.compile(
    r"\b(?:response|answer|completion|output|assistant|user|says?|writes?|quot\w+|example)\b[^\n]*\n*\Z",
    re.IGNORECASE,
)
_SAID_BY = re.compile(  # a line that brings in what something else says
    rf"(?:.*\b(?:{LABEL}|(?:the|this|that)\s+(?:response|answer|completion|output|text|prompt|question|user)|it)\s+(?:\w+\s+){{0,2}}?"
    r"(?:says?|said|ends?|contains?|reads?|writes?|states?|claims?|includes?|instructs?|tries|demands?|tells?)(?:\b[^.!?:\n]{0,60}:|\s+with|)"
    rf"|.*\b(?:line|sentence|words?|end)\s+of\s+(?:{LABEL}|the\s+(?:response|answer|completion))\s+(?:is|are|reads?)\s*:?|(?:(?:for\s+)?example|draft)\s*:)",
    re.IGNORECASE,
)
_END_MARK = re.compile(
    r"(?:\s*(?:</s>|<eos>|<end_of_turn>|<\|\w+\|>))+\s*\Z"
)  # as servers leave them behind an answer
_BOXED = re.compile(
    r"([:=]\s*)\$*\\boxed\{(?:\\text\{([^{}]*)\}|([^{}]*))\}\$*"
)  # never alone: that is an answer to a sum
_TAGGED = re.compile(
    r"([:=]\s*)<\s*(response|answer|completion)_([12])\s*>[.*]*$", re.MULTILINE | re.IGNORECASE
)
_QUOTED = re.compile(
    r"(?:(?<=\s)|(?<=[(:])|^)(?:\"[^\"\n]*\n[^\"]*\"|“[^”\n]*\n[^”]*”|«[^»\n]*\n[^»]*»)"
)  # over more than a line
_BULLET = re.compile(r"^(?:[-+•*]\s+|#+\s+)+")
_EMPHASIS = re.compile(r"\*+|`+|(?<!\w)_+|_+(?!\w)")


def own_lines(reply: str) -> list[str]:
    """The lines that a judge says itself, without marks of emphasis, bullets and headings; an empty
    one where a paragraph ends.
    """
    text = _END_MARK.sub("", split_thought(reply)[1].replace("：", ":").replace("’", "'"))
    text = _MATERIAL.sub("", _TAGGED.sub(r"\1\2 \3", _BOXED.sub(r"\1\2\3", text)))
    if whole := _ONE_FENCE.fullmatch(text):
        text = whole[2]
    elif (
        (last := _LAST_FENCE.search(text))
        and json_object(last[2])
        and not _INTRODUCED.search(text[: last.start()])
    ):
        text = f"{text[: last.start()]}\n{' '.join(last[2].split())}"
    elif json_object(text):
        text = " ".join(text.split())
    text = _QUOTED.sub('""', _FENCE.sub("", text))
    return _unreported(
        [_bare(line) for line in text.split("\n") if not line.lstrip().startswith(">")]
    )


def json_object(text: str) -> dict[str, Any] | None:
    """A JSON object that the whole text is, by keys in lower case; None for anything else, and
    where a key is there twice.
    """
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unreported(lines: Sequence[str]) -> list[str]:
    """Without the line behind `Response 2 says:`, which is a quotation without marks."""
    own, before = list[str](), ""
    for line in lines:
        own.append("" if line and _SAID_BY.fullmatch(before) else line)
        before = line or before
    return own


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = {name.lower(): value for name, value in pairs}
    if len(members) < len(pairs):
        raise ValueError("a key is there twice")
    return members


def _bare(line: str) -> str:
    line = line.strip()
    return (
        line
        if line.startswith("{")
        else _BULLET.sub("", _EMPHASIS.sub("", _BULLET.sub("", line)).strip()).strip()
    )

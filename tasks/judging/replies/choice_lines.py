"""Lines of a reply that are a choice between two responses, and nothing else: `Better: 1`, `Winner:
Response 2`, `tie`, or JSON of the same.

Test: pytest tests/tasks/judging/replies/test_parsing.py
"""

import re
from collections.abc import Sequence
from typing import Any

from dapflow.tasks.judging.replies.claims import LABEL, label_of, takes_back
from dapflow.tasks.judging.replies.grammar import (
    CLOSE,
    IS,
    LEAD,
    OPEN,
    REASON,
    STOP,
    UNFIT_REASON,
    member,
)
from dapflow.tasks.judging.replies.reply_lines import json_object

CHOICE_NAME = (
    r"(?:the\s+|my\s+)?(?:(?:final|overall)\s+)?(?:(?:better|best|preferred|winning|stronger)(?:\s+(?:response|answer|one|option|completion))?|winner|"
    r"preference|verdict|choice|decision|judge?ment)"
)
_TIE = (
    r"(?:it\s+is\s+|it's\s+)?(?:a\s+)?(?:tie|draw)|tied|equal(?:ly\s+good)?|neither(?:\s+(?:response|answer|one|of\s+them))?(?:\s+is\s+better(?:\s+than\s+the\s+other)?)?|both"
    r"|(?:both|they|the\s+two)(?:\s+(?:responses|answers))?\s+are\s+(?:(?:about|roughly|exactly)\s+)?(?:equal(?:ly\s+good)?|tied|the\s+same)"
    r"|no\s+(?:preference|winner)"
)
_CHOSEN = rf"{OPEN}\s*(?P<label>(?:{LABEL}|{_TIE}))\s*{CLOSE}"
_BETTER = (
    r"(?:\s+(?:is|was)\s+(?:(?!(?:not|no|never|hardly|barely|neither|rarely|seldom)\b)\w+\s+)?(?:(?:the\s+)?better(?:\s+(?:one|response|answer|option|choice))?"
    rf"(?:\s+than\s+(?:{LABEL}|the\s+other(?:\s+one)?))?|more\s+\w+(?:,?\s+and\s+(?:more\s+)?\w+)?)|\s+wins)?"
)
_ON_BOTH = re.compile(
    r"\b(?:both|neither|equal|tie)\b", re.IGNORECASE
)  # no second thoughts where the verdict is a tie
_NAMED_CHOICE = re.compile(
    rf"{LEAD}(?:{CHOICE_NAME}){IS}{_CHOSEN}{_BETTER}(?:{STOP}|{REASON})", re.IGNORECASE
)
_BEGUN_CHOICE = re.compile(
    rf"{LEAD}(?:(?:{CHOICE_NAME})\s*(?:is\s*)?[:=]|better\s*[-–—→>])", re.IGNORECASE
)
_BARE_CHOICE = re.compile(rf"{LEAD}{_CHOSEN}{STOP}", re.IGNORECASE)
_BECAUSE = re.compile(
    rf"{LEAD}{_CHOSEN}\s*,?\s+(?:because|since)\s+(?P<reason>\D.*)", re.IGNORECASE
)
_LABEL = re.compile(LABEL, re.IGNORECASE)
_HEADING = re.compile(
    r"(?:the\s+)?(?:response|answer|option|candidate|completion|output|assistant)\s*[#:_]?\s*([12])\b",
    re.IGNORECASE,
)
_ASKS_WHICH = re.compile(  # a line that a bare choice may answer
    r"(?!.*\b(?:worse|worst|weaker|inferior|less|not|reject\w*|loses?|loser)\b).*\b(?:better|best|prefer\w*|verdict|choice|choose|pick|winner|decision|decide|"
    r"judge?ments?|conclusion|conclude|overall|(?:my|final)\s+answer)\b",
    re.IGNORECASE,
)
_CHOICE_KEYS = (
    "better",
    "winner",
    "verdict",
    "choice",
    "preferred",
    "preference",
    "better_response",
    "better_answer",
    "final",
    "final_verdict",
)


def choice_of(line: str) -> Any:
    """ "1", "2" or "tie"; None for what begins as a choice and cannot be read, False for a line
    that is none.
    """
    if (members := json_object(line)) is not None:
        return member(members, _CHOICE_KEYS, lambda value: _chosen(value, members))
    found = _NAMED_CHOICE.fullmatch(line)
    if found is None:
        return None if _BEGUN_CHOICE.match(line) else False
    value, reason = _value(found["label"]), found["reason"]
    if reason is None:
        return value
    bare_number = any(
        named[0].strip("#") in ("1", "2") for named in _LABEL.finditer(reason)
    )  # "Better: 1, 2"
    unfit = UNFIT_REASON.match(_ON_BOTH.sub("", reason) if value == "tie" else reason)
    return None if unfit or bare_number or takes_back(reason, value) else value


def names_another(line: str, value: str) -> bool:
    """Whether a line is another choice without a name before it."""
    found = _BARE_CHOICE.fullmatch(line)
    return found is not None and _value(found["label"]) != value


def bare_choice(lines: Sequence[str]) -> tuple[str, int] | None:
    """A choice without a name before it, and its line's place. Only the last line or the first can
    be one: elsewhere it is a heading or the number of a list."""
    spoken = [place for place, line in enumerate(lines) if line]
    if len(spoken) == 1 and (only := _BECAUSE.fullmatch(lines[spoken[0]])):
        value, reason = _value(only["label"]), only["reason"]
        return (
            None if UNFIT_REASON.match(reason) or takes_back(reason, value) else (value, spoken[0])
        )
    bare = {
        place: _value(found["label"])
        for place in spoken
        if (found := _BARE_CHOICE.fullmatch(lines[place]))
    }
    if len(set(bare.values())) != 1:
        return None
    [value] = set(bare.values())
    first, last = spoken[0], spoken[-1]
    before = lines[spoken[-2]] if len(spoken) > 1 else ""
    if last in bare and before.endswith((":", "?")) and not _ASKS_WHICH.match(before):
        return None
    if last in bare and (last == first or not lines[last - 1] or lines[last - 1][-1] in ".!?:)"):
        place = last
    elif first in bare and not any(
        (heading := _HEADING.match(lines[other]))
        and _HEADING.match(lines[first])
        and heading[1] != value
        for other in spoken
    ):
        place = first
    else:
        return None
    rest = "\n".join(line for other, line in enumerate(lines) if other != place)
    return None if takes_back(rest, value) else (value, place)


def _chosen(value: Any, members: dict[str, Any]) -> str | None:
    label = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    found = _BARE_CHOICE.fullmatch(label.strip())
    return _value(found["label"]) if found and members.get("worse") != value else None


def _value(label: str) -> str:
    return label_of(label) if _LABEL.fullmatch(label) else "tie"

"""Reading a judge's reply: a score, a choice, or nothing. What cannot be read is never a score of zero, and never a label.

The last line that is a verdict and nothing but a verdict decides: `Better: 1`, `Response 2`, `tie`, `Score: 7/10`, or JSON of the same; a reason
may follow it. Lines without a name, `1`, are verdicts at the end or the beginning of a reply only. Where no line is one, a sentence decides whose
subject cannot be mistaken (claims.py): `Response 1 is better.` A line that begins as a verdict and cannot be read as one, a text behind a verdict
that names another, and two verdicts with nothing said between them leave nothing.
Test: pytest tests/tasks/judges/test_parsing.py
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.judges.claims import LABEL, claimed, label_of, takes_back
from tasks.judges.reply_lines import json_object, own_lines

FIRST, TIE, SECOND = 1.0, 0.5, 0.0
_VALUES = {"1": FIRST, "2": SECOND, "tie": TIE}

_LEAD = (
    r"(?:(?:so|thus|therefore|hence|no|wait|actually|overall|finally|correction|on\s+(?:reflection|second\s+thoughts?|balance)|all\s+in\s+all|"
    r"in\s+(?:sum|summary|conclusion|total|short|the\s+end)|to\s+(?:sum\s+up|conclude)|(?:(?:my|final)\s+)*(?:verdict|answer|decision|conclusion|"
    r"result|judge?ment))\s*[,:]\s*)*"
)
_IS = r"(?:\s*(?:is\s*)?[:=]\s*|\s+is\s+)"
_OPEN, _CLOSE = r"[<\[({\"'“$]*", r"[>\])}\"'”$]*"
_REASON = r"(?:\s*(?:[,;:.–—(-]\s*|\b(?:because|since|as)\b\s*)(?P<reason>\D.*))?"
_UNFIT_REASON = re.compile(  # what turns the verdict before it into none
    r"(?:no|not|nor|never|but|or|and|to|than|minus|plus)\b|.*(?:\b(?:or|if|unless|wait|actually|correction|instead|rather|depend\w*|would|could|might|"
    r"may|should|sorry|tie|equal|both|neither)\b|[→=≈~]|->)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = (
    rf"{_OPEN}(?P<score>[0-9]+(?:[.,][0-9]{{1,2}})?){_CLOSE}(?:\s*(?:points?|stars?))?"
    rf"(?:\s*(?:/|out\s+of|of)\s*(?P<scale>[0-9]+)|\s*\((?:out\s+)?of\s+(?P<scale_>[0-9]+)\))?{_CLOSE}(?:\s*(?:points?|stars?))?"
)
_RANGE = r"(?:\s*\((?P<range>[^()\n]{1,30})\))?"
_SCORE_NAME = r"(?:(?:the|my)\s+)?(?:(?:final|overall|total)\s+)?(?:score|rating|grade)"
_BULLET = r"(?:[0-9]{1,2}[.)]\s+)?"
_CHOICE_NAME = (
    r"(?:the\s+|my\s+)?(?:(?:final|overall)\s+)?(?:(?:better|best|preferred|winning|stronger)(?:\s+(?:response|answer|one|option|completion))?|winner|"
    r"preference|verdict|choice|decision|judge?ment)"
)
_TIE = (
    r"(?:it\s+is\s+|it's\s+)?(?:a\s+)?(?:tie|draw)|tied|equal(?:ly\s+good)?|neither(?:\s+(?:response|answer|one|of\s+them))?(?:\s+is\s+better)?|both"
    r"|(?:both|they|the\s+two)(?:\s+(?:responses|answers))?\s+are\s+(?:(?:about|roughly|exactly)\s+)?(?:equal(?:ly\s+good)?|tied|the\s+same)"
    r"|no\s+(?:preference|winner)"
)
_CHOSEN = rf"{_OPEN}\s*(?P<label>(?:{LABEL}|{_TIE}))\s*{_CLOSE}"
_BETTER = r"(?:\s+(?:is|was)\s+(?:\w+\s+)?(?:the\s+)?better(?:\s+(?:one|response|answer|option|choice))?|\s+wins)?"
_STOP = r"\s*[.!]?"
_NAMED_CHOICE = re.compile(rf"{_LEAD}(?:{_CHOICE_NAME}){_IS}{_CHOSEN}{_BETTER}(?:{_STOP}|{_REASON})", re.IGNORECASE)
_BEGUN_CHOICE = re.compile(rf"{_LEAD}(?:(?:{_CHOICE_NAME})\s*(?:is\s*)?[:=]|better\s*[-–—→>])", re.IGNORECASE)
_BARE_CHOICE = re.compile(rf"{_LEAD}{_CHOSEN}{_STOP}", re.IGNORECASE)
_HEADING = re.compile(r"(?:the\s+)?(?:response|answer|option|candidate|completion|output|assistant)\s*[#:_]?\s*([12])\b", re.IGNORECASE)
_NAME_ALONE = re.compile(rf"{_LEAD}(?:{_CHOICE_NAME}|{_SCORE_NAME})\s*:", re.IGNORECASE)
_BEGUN_SCORE = re.compile(rf"{_LEAD}(?:{_SCORE_NAME}){_RANGE}(?:\s*(?:is\s*)?[:=]|\s+(?:is\s+|of\s+)?\W*[0-9])", re.IGNORECASE)
_SCORE_SAID = re.compile(r"\b(?:score|rating|grade)\b\W{0,4}(?:is|of|:|=)?\W{0,4}[0-9]|^\W*(?:out\s+of|of|/)\s*[0-9]", re.IGNORECASE)
_REVISED = re.compile(
    r"\b(?:wait|actually|reflection|second\s+thoughts?|again|correct\w*|revis\w+|reconsider\w*|final\w*|overall|total|sum|all\s+in\s+all|conclu\w+|"
    r"verdict|sorry|make\s+that|rather|instead|no)\b",
    re.IGNORECASE,
)
_CHOICE_KEYS = ("better", "winner", "verdict", "choice", "preferred", "preference", "better_response", "better_answer")
_SCORE_KEYS = ("score", "rating", "grade", "final_score", "overall_score", "total_score", "overall", "total")
_SCALE_KEYS = ("out_of", "scale", "max", "max_score", "maximum")
_MANY_WORDS = 4  # between two verdicts: less than that is a heading


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which response is better. first: 1, 0, or 0.5 for a tie that the judge names; line: where the reply says so."""

    first: float
    line: str


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line that is a verdict, or, with value None, one that begins as a verdict and cannot be read."""

    place: int
    value: Any


def parse_score(text: str, highest: float = 5.0, lowest: float = 0.0) -> float | None:
    """The score that decides if it lies in [lowest, highest], else None (Self-Rewarding, arXiv 2401.10020, appendix)."""
    lines = _joined(own_lines(text))
    verdicts = [_Line(place=place, value=value) for place, line in enumerate(lines) if (value := _score_of(line, highest)) is not False]
    last = _deciding(lines, verdicts)
    if last is None or any(
        _SCORE_SAID.search(line) or (_REVISED.search(line) and re.search(r"[0-9]", line)) for line in lines[last.place + 1 :]
    ):
        return None
    return last.value if lowest <= last.value <= highest else None


def parse_criteria(text: str, names: Iterable[str], highest: float, lowest: float) -> dict[str, float] | None:
    """The grade of each criterion, from lines that are nothing but its name and its grade; None when one is missing or off the scale:
    half a rubric is no score."""
    lines = own_lines(text)
    grades: dict[str, float] = {}
    for name in names:
        named = re.compile(rf"{_BULLET}{re.escape(name)}{_RANGE}{_IS}(?:{_NUMBER}(?:{_STOP}|{_REASON}))", re.IGNORECASE)
        begun = re.compile(rf"{_BULLET}{re.escape(name)}{_RANGE}\s*(?:is\s*)?[:=]", re.IGNORECASE)
        verdicts = [
            _Line(place=place, value=value)
            for place, line in enumerate(lines)
            if (value := _grade_of(line, name, named, begun, highest)) is not False
        ]
        last = _deciding(lines, verdicts)
        if last is None or not lowest <= last.value <= highest:
            return None
        grades[name] = last.value
    return grades


def parse_choice(text: str) -> float | None:
    """The probability that the first is better: 1, 0, or 0.5 for a tie that the judge names; None for what cannot be read."""
    choice = read_choice(text)
    return None if choice is None else choice.first


def read_choice(text: str) -> Choice | None:
    """The same, with the line that says so."""
    lines = _joined(own_lines(text))
    verdicts = [_Line(place=place, value=value) for place, line in enumerate(lines) if (value := _choice_of(line)) is not False]
    if verdicts:
        last = _deciding(lines, verdicts)
        if last is None or takes_back("\n".join(lines[last.place + 1 :]), last.value):
            return None
        return Choice(first=_VALUES[last.value], line=lines[last.place])
    return _bare_choice(lines) or _claimed_choice(lines)


def _claimed_choice(lines: Sequence[str]) -> Choice | None:
    label = claimed("\n".join(lines))
    if label is None:
        return None
    return Choice(first=_VALUES[label], line=next(line for line in lines if claimed(line) == label or label in line))


def _bare_choice(lines: Sequence[str]) -> Choice | None:
    """A choice without a name before it, which only the last line or the first can be: elsewhere it is a heading or the number of a list."""
    spoken = [place for place, line in enumerate(lines) if line]
    bare = {place: _value(found["label"]) for place in spoken if (found := _BARE_CHOICE.fullmatch(lines[place]))}
    if len(set(bare.values())) != 1:
        return None
    [value] = set(bare.values())
    first, last = spoken[0], spoken[-1]
    if last in bare and (last == first or not lines[last - 1] or lines[last - 1][-1] in ".!?:)"):
        place = last
    elif first in bare and not any(
        (heading := _HEADING.match(lines[other])) and _HEADING.match(lines[first]) and heading[1] != value for other in spoken
    ):
        place = first
    else:
        return None
    rest = "\n".join(line for other, line in enumerate(lines) if other != place)
    return None if takes_back(rest, value) else Choice(first=_VALUES[value], line=lines[place])


def _deciding(lines: Sequence[str], verdicts: Sequence[_Line]) -> _Line | None:
    """The last verdict; None where it cannot be read, or where another one stands before it with nothing said between the two."""
    if not verdicts or verdicts[-1].value is None:
        return None
    last = verdicts[-1]
    for earlier in verdicts[:-1]:
        between = [line for line in lines[earlier.place + 1 : last.place] if line]
        heading = bool(between) and len(" ".join(between).split()) < _MANY_WORDS  # of one part, and then of another
        if (heading or (not between and earlier.value != last.value)) and not _REVISED.search(" ".join([*between, lines[last.place]])):
            return None
    return last


def _choice_of(line: str) -> Any:
    """ "1", "2" or "tie"; None for what begins as a choice and cannot be read, False for a line that is none."""
    if (members := json_object(line)) is not None:
        return _member(members, _CHOICE_KEYS, lambda value: _chosen(value, members))
    found = _NAMED_CHOICE.fullmatch(line)
    if found is None:
        return None if _BEGUN_CHOICE.match(line) else False
    value, reason = _value(found["label"]), found["reason"]
    if reason is None:
        return value
    bare_number = re.search(r"(?<!\w )(?<![\w#])[12](?![\w.,/])", re.sub(LABEL, _without_noun, reason, flags=re.IGNORECASE))
    return None if _UNFIT_REASON.match(reason) or bare_number or takes_back(reason, value) else value


def _without_noun(found: re.Match[str]) -> str:
    return found[0] if found[0].strip("#") in ("1", "2") else "it"


def _chosen(value: Any, members: dict[str, Any]) -> str | None:
    label = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    found = _BARE_CHOICE.fullmatch(label.strip())
    return _value(found["label"]) if found and members.get("worse") != value else None


def _value(label: str) -> str:
    return label_of(label) if re.fullmatch(LABEL, label, re.IGNORECASE) else "tie"


def _score_of(line: str, highest: float) -> Any:
    """The number; None for what begins as a score and cannot be read, False for a line that is none."""
    if (members := json_object(line)) is not None:
        scale = next((members[key] for key in _SCALE_KEYS if key in members), highest)
        return _member(members, _SCORE_KEYS, lambda value: _json_number(value, highest) if scale == highest else None)
    found = _NAMED_SCORE.fullmatch(line)
    if found is None:
        return None if _BEGUN_SCORE.match(line) else False
    return _number(found, highest)


_NAMED_SCORE = re.compile(rf"{_LEAD}{_BULLET}(?:{_SCORE_NAME}){_RANGE}\s*[:=]?\s*{_NUMBER}(?:{_STOP}|{_REASON})", re.IGNORECASE)

_GRADE = re.compile(rf"[^:=]{{1,40}}[:=]\s*{_NUMBER.replace('<score>', '<a>').replace('<scale', '<b')}{_STOP}", re.IGNORECASE)


def _grade_of(line: str, name: str, named: re.Pattern[str], begun: re.Pattern[str], highest: float) -> Any:
    if (members := json_object(line)) is not None:
        return _member(members, (name.lower(),), lambda value: _json_number(value, highest))
    pieces = re.split(r"[,;|]\s+", line)
    for piece in pieces if all(map(_GRADE.fullmatch, pieces)) else [line]:
        if found := named.fullmatch(piece):
            return _number(found, highest)
    return None if begun.match(line) else False


def _number(found: re.Match[str], highest: float) -> float | None:
    """The number that a line holds; None on another scale, or where what follows is no reason."""
    scales = [float(scale) for scale in (found["scale"], found["scale_"], _upper(found["range"])) if scale is not None]
    reason = found["reason"]
    if any(scale != highest for scale in scales) or (reason is not None and (_UNFIT_REASON.match(reason) or re.search(r"[0-9]", reason))):
        return None
    return float(found["score"].replace(",", "."))


def _upper(said: str | None) -> str | None:
    """The upper end of a scale that stands in brackets behind the name: (0-5), (out of 5), (max 5)."""
    numbers = re.findall(r"[0-9]+", said or "")
    return numbers[-1] if numbers else None


def _json_number(value: Any, highest: float) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(rf"{_NUMBER}(?P<range>)(?P<reason>)?", value.strip()) if isinstance(value, str) else None
    return None if found is None else _number(found, highest)


def _member(members: dict[str, Any], keys: Sequence[str], read: Callable[[Any], Any]) -> Any:
    """What the one of these keys that is there says; None where it cannot be read or several differ, False where none is there."""
    values = [read(members[key]) for key in keys if key in members]
    if not values:
        return False
    return values[0] if all(value == values[0] for value in values) else None


def _joined(lines: Sequence[str]) -> list[str]:
    """A name that stands alone on its line together with what follows it."""
    joined: list[str] = []
    for line in lines:
        if line and joined and _NAME_ALONE.fullmatch(next((earlier for earlier in reversed(joined) if earlier), "")):
            while not joined[-1]:
                joined.pop()
            joined[-1] = f"{joined[-1]} {line}"
        else:
            joined.append(line)
    return joined

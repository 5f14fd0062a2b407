"""The sentences of a text, in English, German, French, Spanish or Italian, of any case, in Markdown
or not.

    sentences('Dr. Who said, "Run!" Nobody ran.')  ->  ['Dr. Who said, "Run!"', 'Nobody ran.']
A sentence ends with `.`, `!`, `?` or an ellipsis before a space, or with its paragraph, its point
of a list or (without a comma there, or a small letter after it) its line. Dots of abbreviations,
initials, ordinals and numbers end none; nor does an ellipsis before a small letter, or what is said
in quotation marks before who says it. A heading is no sentence; what has neither letter nor digit
belongs to the sentence before it. Test: pytest tests/tasks/judging/test_sentences.py
"""

import re
from dataclasses import dataclass

POINT = re.compile(r"[ \t]*(?:[-*+•]|(?:\*\*|__)?\d{1,3}[.)](?:\*\*|__)?)(?=\s|$)\s*")
"""What a point of a list begins with: a dash, an asterisk, a bullet, or its number."""
_HEADING = re.compile(r"#{1,6}\s.*|(\*\*|__)(?:(?!\1).)*[^.!?…:](?<![.!?…:])\1")
_END = re.compile(
    r"(?P<stop>[.!?…]+)(?P<close>(?:\[\d+\]|[\"'”“’»)\]*_`]|[\u2600-\u27bf\ufe0f\u200d]"
    r"|[\U0001f000-\U0001faff])*)(?:\s+|$)"  # the last are emoji
    r"|[。！？]+[”’」』）]*"  # after which there is no space
    r"|(?<=[a-z]{2})[.!?](?=[A-Z][a-z])"  # nor where it has been forgotten
)
_WORD = re.compile(r"[^\w]*(\w[\w'’]*)(\.?)")
_ENUMERATION = re.compile(r"(?:^|\s)1\.\s.*\s2\.\s")
_LETTERS_WITH_DOTS = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+")  # U.S, Ph.D


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEVER_LAST = _set("e.g i.e vs cf viz z.b d.h u.a bzw p.ex ej")
_BEFORE_NAMES = _set(
    "mr mrs ms dr prof st sr jr rev gen capt lt col sgt hon mt hr fr mme mlle sra srta dott sig avv"
    " ing"
)
_BEFORE_DIGITS = _set(
    "no nr nº núm fig vol ch art pp kap jan feb mar apr jun jul aug sep sept oct nov dec"
)
_LAST_BEFORE_CAPITALS = _set(
    "etc a.m p.m usw ecc al inc ltd co corp approx ca max min avg incl excl inkl dept est resp evtl"
    " ggf oz lb lbs tbsp tsp hr hrs ft ud uds av"
)
_BEFORE_A_LETTER = _set(
    "vitamin vitamins plan option group type grade point letter class section part step to"
)
_OPENING = _set(
    "the a an it its he she they we you i this that these those there then but and so or if when"
    " while what who where why how in on at after before once my your his her our their no yes not"
    " as for with from by one some many all every each both also however although because since"
    " der die das ein eine er sie es wir ich du und aber dann wenn le la les un une il elle nous"
    " vous je ce et mais puis el los las una yo este esta y pero luego lo gli uno lui lei noi io e"
    " ma poi"
)
"""Words that begin a sentence, and hardly ever are a name after an initial or a title."""
_ORDINAL_AFTER = _set("am der die das den dem des im zum vom ab bis seit jeden")
_MONTHS = _set("januar februar märz april mai juni juli august september oktober november dezember")
_SAYS = (
    "said says asked asks replied replies cried whispered shouted called answered thought laughed"
    " added told whispers shouts answers"
).replace(" ", "|")
_WHO_SAYS = re.compile(rf"(?:\w+\s+){{1,3}}?(?:{_SAYS})\b")
_NAME_SAYS = re.compile(rf"(\w+)\s+(?:{_SAYS})\b")


@dataclass(frozen=True)
class _Style:
    """Of a block. cased: it has capital letters; enumerates: "1." and "2." stand within it."""

    cased: bool
    enumerates: bool


def sentences(text: str) -> list[str]:
    """In their order."""
    blocks = list(filter(None, _blocks(text))) or [text]  # "42." alone is no point of a list
    return [sentence for block in blocks for sentence in _of_block(block)]


def _blocks(text: str) -> list[str]:
    """What no sentence goes beyond: paragraphs, points of lists, lines that the next does not
    continue. Without headings and marks of lists."""
    blocks, continued = list[str](), False
    for line in map(str.strip, text.splitlines()):
        if not line or _HEADING.fullmatch(line):
            continued = False
            continue
        point = POINT.match(line)
        if continued and not point and (blocks[-1][-1] in ",;–—-" or _first(line).islower()):
            blocks[-1] += f" {line}"
        else:
            blocks.append(line[point.end() :] if point else line)
        continued = bool(blocks[-1])
    return blocks


def _of_block(block: str) -> list[str]:
    """Its sentences; nothing of it is lost but spaces."""
    found, start = list[str](), 0
    style = _Style(
        cased=any(map(str.isupper, block)), enumerates=_ENUMERATION.search(block) is not None
    )
    for end in _END.finditer(block):
        before, after = block[start : end.start()], block[end.end() :]
        if not after.strip() or _ends(before, end, after, style):
            found.append(block[start : end.end()].strip())
            start = end.end()
    found.append(block[start:].strip())
    whole = list[str]()
    for piece in filter(None, found):
        if any(map(str.isalnum, piece)):
            whole.append(piece)
        elif whole:
            whole[-1] += f" {piece}"
    return whole


def _ends(before: str, end: re.Match[str], after: str, style: _Style) -> bool:
    """Whether a sentence ends there. before, after: what stands before the stop, from where the
    sentence began, and after it."""
    stop, close = end["stop"], end["close"]
    if stop is None:
        return True
    small = _first(after).islower()
    if ")" in close or "]" in close.replace("[", ""):
        if small and not before.lstrip("*_\"'“").startswith(("(", "[")):
            return False
    elif any(mark in close for mark in "\"'”“’»"):
        return _ends_after_speech(after, small, style.cased)
    if stop == ".":
        return _ends_after_dot(before, after, style)
    if stop.strip(".…") == "":  # an ellipsis
        return _first(after).isupper() and not re.match(r"I\b", after)
    return True


def _ends_after_speech(after: str, small: bool, cased: bool) -> bool:
    """Whether a sentence ends with its quotation marks: not where it goes on with who says it."""
    if small:
        return not cased and not _WHO_SAYS.match(after)
    named = _NAME_SAYS.match(after)
    return named is None or named[1].lower() in _OPENING


def _ends_after_dot(before: str, after: str, style: _Style) -> bool:
    """Whether a single dot is a full stop."""
    words = before.lower().split()
    word = words[-1].lstrip("\"'“„«‘(*_[") if words else ""
    previous = words[-2] if len(words) > 1 else ""
    following = _WORD.match(after)
    coming, dotted = (following[1], bool(following[2])) if following else ("", False)
    opens = coming.lower() in _OPENING and not (dotted and len(coming) == 1)
    opens &= coming[:1].isupper() or not style.cased
    if word in _NEVER_LAST:
        return False
    if word in _BEFORE_DIGITS and coming[:1].isdigit():
        return False
    if word in _LAST_BEFORE_CAPITALS:
        return coming[:1].isupper()
    if word.isdigit() and len(word) < 3:
        return not (style.enumerates or previous in _ORDINAL_AFTER or coming.lower() in _MONTHS)
    if len(word) == 1 and word.isalpha():
        return previous in _BEFORE_A_LETTER or opens or (word == "i" and len(words) > 1)
    if word in _BEFORE_NAMES or _LETTERS_WITH_DOTS.fullmatch(word):
        return opens
    return True


def _first(text: str) -> str:
    """Its first letter or digit; capital where only the first of its word is small, as in iPhone."""
    word = _WORD.match(text)
    if word is None:
        return ""
    return word[1][0].upper() if any(map(str.isupper, word[1][1:])) else word[1][0]

"""Whether an answer follows the constraints of its prompt: a plain function of the text for each
rule.

    follows(constraints, "The sky is blue. So is the sea.")  ->  1.0: it follows all of them
An answer that was cut off is taken as it is; an empty one follows nothing. Which fields a rule has
says dapflow.tasks.prompts.constraints. Test: pytest tests/tasks/judging/test_constraints.py
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from dapflow.tasks.judging.sentences import POINT, sentences
from dapflow.tasks.prompts.constraints import (
    Constraint,
    Count,
    Edge,
    Form,
    Language,
    Listing,
    Object,
    Without,
    Words,
)

_ITEM = re.compile(r"^[ \t]*[-*][ \t]+(?![-*_ \t]*$)", re.MULTILINE)  # a rule is no point: - - -
_NUMBERED = re.compile(r"^[ \t]*(?:\*\*|__)?(\d{1,3})[.)](?:\*\*|__)?[ \t]+\S", re.MULTILINE)
_BETWEEN_WORDS = re.compile(r"\s|—|…|--+|\.{2,}")
_FENCE = re.compile(r"```[a-zA-Z]*\s(.*)```", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "„": "“”", "”": "”"}
"""How a quotation begins, and with what it may end: in English, in German, in Swedish."""
_MARKS = "*_`"  # of emphasis: a reader does not see them
_PLAIN = str.maketrans("‘’‚“”„", "'''\"\"\"")
_CODES = {"en": "English", "fr": "French", "de": "German", "it": "Italian", "es": "Spanish"}


def follows(constraints: Sequence[Constraint], completion: str) -> float:
    """The share of the constraints that the completion follows, 0 to 1."""
    return fmean(follows_one(constraint, completion) for constraint in constraints)


def follows_one(constraint: Constraint, completion: str) -> bool:
    """Whether the completion follows the constraint."""
    lines = completion.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", lines).strip()
    return bool(text) and _RULES[constraint.rule](constraint, text)


def _sentences(wanted: Count, text: str) -> bool:
    """As many sentences (sentences.py says what one is)."""
    return wanted.lowest <= len(sentences(text)) <= wanted.highest


def _words(wanted: Count, text: str) -> bool:
    """As many words: what stands between spaces, dashes or ellipses and has a letter or a digit. A
    hyphen parts none; the number or dash of a point of a list is none."""
    bare = "\n".join(POINT.sub("", line, count=1) for line in text.split("\n"))
    words = _BETWEEN_WORDS.split(bare if bare.strip() else text)
    return wanted.lowest <= sum(any(map(str.isalnum, word)) for word in words) <= wanted.highest


def _items(wanted: Listing, text: str) -> bool:
    """As many lines that begin with a dash or an asterisk and a space, at whatever depth; there may
    be other lines. A bullet (•) is neither."""
    return len(_ITEM.findall(text)) == wanted.exactly


def _numbered(wanted: Listing, text: str) -> bool:
    """As many lines that begin with their number and a full stop or a bracket, from 1 on in order,
    at whatever depth; there may be other lines."""
    return [int(number) for number in _NUMBERED.findall(text)] == [*range(1, wanted.exactly + 1)]


def _lines(wanted: Listing, text: str) -> bool:
    """As many lines with something in them."""
    return sum(bool(line.strip()) for line in text.split("\n")) == wanted.exactly


def _contains(wanted: Words, text: str) -> bool:
    """Every word is there as a whole word, in any case."""
    return all(_has(word, text) for word in wanted.words)


def _excludes(wanted: Words, text: str) -> bool:
    """No word is there as a whole word, in any case."""
    return not any(_has(word, text) for word in wanted.words)


def _has(word: str, text: str) -> bool:
    """Whether the word is there: not in a longer one, but with 's, in a compound with hyphens or
    after an apostrophe (l'eau)."""
    parts = r"\s+".join(map(re.escape, _folded(word).split()))
    whole = rf"(?<![^\W_]){parts}(?![^\W_]|'(?!s\b)[^\W_])"
    return re.search(whole, _folded(text)) is not None


def _folded(text: str) -> str:
    """For comparing in any case, with whatever form of quotation marks."""
    return unicodedata.normalize("NFC", text).translate(_PLAIN).casefold()


def _without(wanted: Without, text: str) -> bool:
    """None of the characters, letters in either case. A letter with an accent is another one."""
    small = text.lower()
    return not any(character in small for character in wanted.characters.lower())


def _starts(wanted: Edge, text: str) -> bool:
    """The text begins the answer, in any case, and does not end within a word. Emphasis, the mark
    of a heading and opening quotation marks may stand before it."""
    begun, start = _spaced(text), _spaced(wanted.text)
    bare = begun.lstrip(f'#{_MARKS}"« ')
    return any(
        whole.startswith(start) and not (start[-1].isalnum() and whole[len(start) :][:1].isalnum())
        for whole in (begun, bare)
    )


def _ends(wanted: Edge, text: str) -> bool:
    """The text ends the answer, in any case, and does not begin within a word. After a word there
    may be a mark that ends a sentence, and closing quotation marks; a text that ends with a mark
    ends the answer as it is. Emphasis may stand after both."""
    ended, end = _spaced(text).rstrip(_MARKS), _spaced(wanted.text)
    if end[-1].isalnum():
        ended = ended.rstrip(f".!?,…\"'») {_MARKS}")
    before = ended.removesuffix(end)
    return before != ended and not (end[0].isalnum() and before[-1:].isalnum())


def _spaced(text: str) -> str:
    return " ".join(_folded(text).split())


def _json(wanted: Object, text: str) -> bool:
    """The answer, or all that a code fence around it holds, is one JSON object with exactly these
    keys, each once."""
    fenced = _FENCE.fullmatch(text)
    try:
        found = json.loads(
            fenced[1] if fenced else text, object_pairs_hook=list, parse_constant=_no_json
        )
    except (ValueError, RecursionError):
        return False
    # an object comes as a list of pairs, which a list of JSON never holds: pairs are tuples
    return (
        isinstance(found, list)
        and all(isinstance(pair, tuple) for pair in found)
        and sorted(key for key, _ in found) == sorted(wanted.keys)
    )


def _no_json(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON, although Python reads it")


def _language(wanted: Language, text: str) -> bool:
    """Most of the answer is in that language, as py3langid tells it from 138 others."""
    return _CODES.get(_identifier().classify(text)[0]) == wanted.name


@lru_cache(1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # a model is read: when it is used

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _lowercase(wanted: Form, text: str) -> bool:
    """No capital letter."""
    del wanted
    return not any(unicodedata.category(character) in ("Lu", "Lt") for character in text)


def _uppercase(wanted: Form, text: str) -> bool:
    """No small letter, but ß, which has hardly a capital."""
    del wanted
    return not any(unicodedata.category(character) == "Ll" for character in text.replace("ß", ""))


def _quoted(wanted: Form, text: str) -> bool:
    """The whole answer stands in one pair of double quotation marks, straight or curly; there may
    be others within it."""
    del wanted
    bare = text.strip(_MARKS)
    closing = _QUOTES.get(bare[:1], "")
    if len(bare) < 3 or not bare[1:-1].strip() or bare[-1] not in closing:
        return False
    return _closes_last(bare, closing)


def _closes_last(text: str, closing: str) -> bool:
    """Whether the quotation that begins the text ends only with it."""
    depth = 0
    for place, character in enumerate(text):
        opens = character == text[0] and (
            character not in closing or place == 0 or text[place - 1] in " \n\t([—-"
        )
        if opens and place < len(text) - 1:
            depth += 1
        elif character in closing:
            depth -= 1
        if depth == 0:
            return place == len(text) - 1
    return False


_RULES: dict[str, Callable[[Any, str], bool]] = {
    "sentences": _sentences,
    "words": _words,
    "items": _items,
    "numbered": _numbered,
    "lines": _lines,
    "contains": _contains,
    "excludes": _excludes,
    "without": _without,
    "starts_with": _starts,
    "ends_with": _ends,
    "json": _json,
    "language": _language,
    "lowercase": _lowercase,
    "uppercase": _uppercase,
    "quoted": _quoted,
}

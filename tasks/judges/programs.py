"""Judges that are plain functions of the text, `(prompt, completion) -> score`: shipped ones, and any that can be imported.

    shorter | on-topic | json | regex:PATTERN | keywords:WORD,WORD | FILE.py:FUNCTION | PACKAGE.MODULE:FUNCTION
Test: pytest tests/tasks/judges/test_programs.py
"""

import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from storage import UserError
from tasks.judges.base import Question, Verdict

Program = Callable[[str, str], float]
_PINNED = re.compile(r"@[0-9a-f]{16}$")


def shorter(prompt: str, completion: str) -> float:
    """Minus the number of words: the shorter of two answers wins."""
    return -float(len(completion.split()))


def on_topic(prompt: str, completion: str) -> float:
    """Share of the prompt's longer words that the completion takes up, in [0, 1]."""
    wanted = {word for word in prompt.lower().split() if len(word) > 3}
    return len(wanted & set(completion.lower().split())) / max(len(wanted), 1)


def valid_json(prompt: str, completion: str) -> float:
    """1 for a completion that is JSON from end to end, else 0."""
    try:
        json.loads(completion)
    except ValueError:
        return 0.0
    return 1.0


def matches(pattern: re.Pattern[str], prompt: str, completion: str) -> float:
    """1 for a completion in which the pattern occurs, else 0."""
    return float(pattern.search(completion) is not None)


def keywords(words: Sequence[str], prompt: str, completion: str) -> float:
    """The share of the words that the completion contains, in [0, 1], whatever their case."""
    said = completion.lower()
    return sum(word.lower() in said for word in words) / len(words)


PROGRAMS: dict[str, Program] = {"shorter": shorter, "on-topic": on_topic, "json": valid_json}


def pinned(name: str) -> str:
    """The name of a program together with the digest of the source it is imported from, so that a changed one makes other versions.

    Raises UserError where there is no such program.
    """
    found = program(name)
    kind = name.partition(":")[0]
    if name in PROGRAMS or kind in _MAKERS:
        return name
    source = inspect.getsourcefile(found)
    return f"{name}@{hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]}" if source else name


def program(name: str) -> Program:
    """The program of that name, pinned or not. Raises UserError that says what there is."""
    kind, _, rest = name.partition(":")
    if name in PROGRAMS:
        return PROGRAMS[name]
    if kind in _MAKERS and rest:
        return _MAKERS[kind](rest)
    if rest:
        return _imported(kind, _PINNED.sub("", rest))
    raise UserError(
        f"There is no judge `{name}`: the programs are {', '.join(sorted(PROGRAMS))}, regex:PATTERN, keywords:WORD,WORD, and any function "
        "(prompt, completion) -> score as FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION."
    )


class ProgramJudge:
    """Scores with a program. An empty completion, an exception or a score that is not a finite number is invalid, never a score of zero."""

    together = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._program = program(name)

    def judge(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        for question in questions:
            yield self._verdict(question)
            if on_rows:
                on_rows(1)

    def _verdict(self, question: Question) -> Verdict:
        if not question.completion.strip():
            return Verdict(outcome="invalid", note="empty completion")
        try:
            score = float(self._program(question.prompt, question.completion))
        except Exception as error:  # a user's own code may raise anything: it is the row's verdict that is missing
            return Verdict(outcome="invalid", note=f"{type(error).__name__}: {error}"[:300])
        if not math.isfinite(score):
            return Verdict(outcome="invalid", note=f"the program's score is {score}")
        return Verdict(outcome="scored", score=score)


def _regex(pattern: str) -> Program:
    try:
        return partial(matches, re.compile(pattern))
    except re.error as error:
        raise UserError(f"regex:{pattern} is not a regular expression ({error}).") from error


def _keywords(words: str) -> Program:
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise UserError("keywords: needs words, for example keywords:because,therefore.")
    return partial(keywords, found)


_MAKERS: dict[str, Callable[[str], Program]] = {"regex": _regex, "keywords": _keywords}


def _imported(place: str, function: str) -> Program:
    module: Any = _file(Path(place).expanduser()) if place.endswith(".py") else _module(place)
    if callable(found := getattr(module, function, None)):
        return cast("Program", found)
    raise UserError(f"{place} has no function `{function}`: write one that takes a prompt and a completion, and returns a number.")


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"There is no file {path}: name the Python file of your judge, for example ./judge.py:score.")
    spec = importlib.util.spec_from_file_location(f"judge_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "the name ends with .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be imported ({type(error).__name__}: {error}).") from error
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(f"The module {name} cannot be imported ({type(error).__name__}: {error}).") from error

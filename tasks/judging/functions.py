"""A function of ours or of the user's, by its name: `shorter`, `regex:PATTERN`, `./judge.py:score`.

Test: pytest tests/tasks/judging/judges/test_program.py
"""

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from dapflow.storage import UserError
from dapflow.tasks.judging.judges.shipped import (
    exact_answer,
    keywords,
    matches,
    on_topic,
    shorter,
    valid_json,
)
from dapflow.tasks.modules import module_named

ANSWER = "answer"
"""The parameter by which a function is given the reference answer of the prompt."""
Function = Callable[..., float]
PROGRAMS: dict[str, Function] = {
    "shorter": shorter,
    "on-topic": on_topic,
    "json": valid_json,
    "exact-answer": exact_answer,
}


def function_of(name: str) -> Function:
    """The function of that name. Raises UserError that says what there is."""
    kind, _, rest = name.partition(":")
    if name in PROGRAMS:
        return PROGRAMS[name]
    if kind in _MAKERS and rest:
        return _MAKERS[kind](rest)
    if rest:
        return _imported(kind, rest)
    raise UserError(
        f"There is no judge `{name}`: the programs are {', '.join(sorted(PROGRAMS))}, "
        "regex:PATTERN, keywords:WORD,WORD, and any function "
        "(prompt, completion) -> score or (prompt, first, second) -> probability as "
        "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION."
    )


def is_ours(name: str) -> bool:
    """Whether the function comes along, rather than is the user's."""
    return name in PROGRAMS or name.partition(":")[0] in _MAKERS


def source_of(function: Function, place: str) -> str | None:
    """The file that a function comes from; None for one that is built into Python."""
    try:
        return inspect.getsourcefile(function)
    except TypeError:  # an object that can be called, or a function in C
        return place if place.endswith(".py") else getattr(sys.modules[place], "__file__", None)


def parameters(function: Function) -> list[str]:
    """What must be given to it. One whose signature nobody knows is taken for a score."""
    try:
        known = inspect.signature(function).parameters.values()
    except ValueError:
        return ["prompt", "completion"]
    return [
        one.name
        for one in known
        if one.kind != one.VAR_KEYWORD and (one.default is one.empty or one.name == ANSWER)
    ]


def _regex(pattern: str) -> Function:
    try:
        return partial(matches, re.compile(pattern))
    except re.error as error:
        raise UserError(f"regex:{pattern} is not a regular expression ({error}).") from error


def _keywords(words: str) -> Function:
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise UserError("keywords: needs words, for example keywords:because,therefore.")
    return partial(keywords, found)


_MAKERS: dict[str, Callable[[str], Function]] = {"regex": _regex, "keywords": _keywords}


def _imported(place: str, function: str) -> Function:
    module: Any = _file(Path(place).expanduser()) if place.endswith(".py") else _module(place)
    if callable(found := getattr(module, function, None)):
        return cast("Function", found)
    raise UserError(
        f"{place} has no function `{function}`: write one that takes a prompt and a completion, "
        "and returns a number."
    )


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(
            f"There is no file {path}: name the Python file of your judge, for example "
            "./judge.py:score."
        )
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
        return module_named(name)
    except Exception as error:
        raise UserError(
            f"The module {name} cannot be imported ({type(error).__name__}: {error})."
        ) from error

"""Reads comparisons against a baseline from a file: .parquet, .csv, .json (an array, or lines),
.jsonl, and the last three as .gz.

    instruction, output, baseline, preference (P(output beats baseline), 0 to 1), and optionally generator (which system answered)
A row without one of them is left out and counted; a row that says something impossible is refused
by its number, and so is a file that mixes judges or is on another scale
(dapflow.tasks.evaluation.winrate.votes).
Imports neither torch nor prefect. Test: pytest tests/flows/cli/test_winrate.py
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dapflow.storage.errors import UserError
from dapflow.tasks.evaluation.winrate.files import FORMS, GENERATOR, Names, records
from dapflow.tasks.evaluation.winrate.votes import (
    check_judges,
    check_repeated,
    check_scale,
    judge_named,
)
from dapflow.tasks.prompts.columns import instruction_of

ONLY_SYSTEM = "output"
_COMMA = " (with a point before its decimals, no comma)"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One judged answer. `delta`: how many characters it is longer than the baseline's; `answer`
    and `against` are equal for equal answers.
    """

    system: str
    instruction: str
    answer: int
    delta: int
    preference: float
    second: float | None = None
    against: int = 0

    @property
    def asked(self) -> tuple[str, str, int, int]:
        """What was judged, of whom and against what."""
        return self.system, self.instruction, self.answer, self.against


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What a file holds, and how many rows were left out for want of a column."""

    rows: list[Comparison]
    left_out: Counter[str] = field(default_factory=Counter[str])


def read_comparisons(path: Path, names: Names) -> Comparisons:
    """All rows of the file. Raises UserError for what cannot be read, is not there, or cannot be."""
    if not path.is_file():
        raise UserError(f"There is no file {path}: give {FORMS}.")
    if twice := [name for name, times in Counter(names.needed()).items() if times > 1]:
        raise UserError(f"Two of the options name the column {twice[0]}: each is another one.")
    rows, numbers, left_out = list[Comparison](), list[int](), Counter[str]()
    judges = defaultdict[str, set[str]](set)
    for number, fields in enumerate(records(path, names), start=1):
        read = _comparison(fields, names, f"{path.name}, row {number}")
        if isinstance(read, str):
            left_out[read] += 1
        else:
            rows.append(read)
            numbers.append(number)
            for name in names.judges(fields):
                judges[name] |= {
                    judge for judge in [judge_named(fields[name])] if judge is not None
                }
    if not rows and left_out:
        raise UserError(
            f"No row of {path.name} has all of {', '.join(names.needed())}: there is nothing to "
            "average."
        )
    if not rows:
        raise UserError(
            f"{path.name} is empty: it needs at least one row of {', '.join(names.needed())}."
        )
    check_scale([row.preference for row in rows], numbers, names.preference, path.name)
    if names.second is None:
        check_judges(judges, path.name)
        check_repeated(rows, numbers, path.name)
    else:
        check_scale(
            [row.second for row in rows if row.second is not None], numbers, names.second, path.name
        )
    return Comparisons(rows=rows, left_out=left_out)


def _comparison(fields: Mapping[str, Any], names: Names, place: str) -> Comparison | str:
    """The row, or the name of the column that is missing in it."""
    system = fields.get(names.generator or GENERATOR, ONLY_SYSTEM)
    values = {name: fields.get(name) for name in names.needed()} | {
        names.generator or GENERATOR: system
    }
    for name, value in values.items():
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return name
    preference = _number(values[names.preference], names.preference, place)
    second = None if names.second is None else _number(values[names.second], names.second, place)
    if preference is None:
        return names.preference
    if names.second is not None and second is None:
        return names.second
    output, baseline = (_text(values[name], name, place) for name in (names.output, names.baseline))
    return Comparison(
        system=str(system),
        instruction=str(instruction_of(fields, names.instruction)),
        answer=hash(output),
        against=hash(baseline),
        delta=len(output) - len(baseline),
        preference=preference,
        second=second,
    )


def _text(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: `{name}` must be text, not {type(value).__name__}.")
    return value


def _number(value: Any, name: str, place: str) -> float | None:
    """A finite number; None where a text says that there is none."""
    if isinstance(value, str) and not value.strip():
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{place}: `{name}` must be a number from 0 to 1, not "
            f"{str(value)[:40]!r}{_COMMA if ',' in str(value) else ''}."
        ) from None
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise UserError(
            f"{place}: `{name}` is {number}, but must be the probability, from 0 to 1, that the "
            "output beats the baseline."
        )
    return number

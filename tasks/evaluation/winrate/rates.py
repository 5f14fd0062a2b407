"""Win rates against a baseline, raw and length-controlled, with 95 % intervals by the bootstrap
over prompts; one or several systems.

    comparisons (dapflow.tasks.evaluation.winrate.comparisons)  ->  Result: for each system its rates, 0 to 100, and what there is to say about them
The order of the rows does not matter. All rows of a prompt (several systems, several seeds) are
drawn together, in the same samples for every system. Imports neither torch nor prefect. Test:
pytest tests/tasks/evaluation/winrate/test_rates.py
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dapflow.tasks.evaluation.winrate.comparisons import Comparison, Comparisons
from dapflow.tasks.evaluation.winrate.length_control import FOLDS, Ints, Model, Rows, fit
from dapflow.tasks.evaluation.winrate.notes import (
    advice,
    is_suspect,
    notes_on,
    notes_on_left_out,
    notes_on_lengths,
    notes_on_repeated,
)
from dapflow.tasks.statistics import Floats, cell_of, resamples, share_interval

SAMPLES = 1000

_ALONE = (
    "One system alone: where hard instructions also make for differences in length, its "
    "length-controlled rate takes the one for the other."
    " A file of several systems (column `generator`) tells them apart."
)


@dataclass(frozen=True, kw_only=True)
class SystemResult:
    """One system's figures, 0 to 100; None, with a sentence in `notes`, where one cannot be had.

    length_difference: characters that its answers are longer than the baseline's, on average.
    same_answer: the share of its rows, 0 to 100, that have its commonest answer; suspect: so many
    that its rates are about the judge.
    """

    win_rate: float
    win_rate_low: float
    win_rate_high: float
    length_controlled_win_rate: float | None
    length_controlled_low: float | None
    length_controlled_high: float | None
    n: int
    prompts: int
    length_difference: float
    same_answer: float
    suspect: bool
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """`n` rows on `prompts` prompts; half_width: half the widest raw interval; `notes`: about the
    file, then about each system.
    """

    n: int
    prompts: int
    half_width: float
    advice: str
    notes: list[str]
    systems: dict[str, SystemResult]

    def as_json(self) -> dict[str, Any]:
        """As `dapflow winrate --json` prints it."""
        return asdict(self)


def win_rates(
    found: Comparisons,
    difficulty: bool = True,
    seed: int = 0,
    samples: int = SAMPLES,
    advance: Callable[[int], None] = lambda _: None,
) -> Result:
    """The figures of every system. difficulty: estimate that of each instruction, where there are
    several systems.
    """
    names, rows, same_answer = _columns(found.rows)
    prompts = int(rows.prompt.max()) + 1
    of_system = [rows.of(number) for number in range(len(names))]
    reasons = [_uncontrollable(one) for one in of_system]
    systems = dict[str, SystemResult]()
    with threadpool_limits(
        1
    ):  # the matrices are small: threads of BLAS would only get into each other's way
        model, place = _fit(rows, [reason is None for reason in reasons], prompts, difficulty)
        counts = list(resamples(prompts, samples, seed))
        for number, (name, mine, reason) in enumerate(zip(names, of_system, reasons, strict=True)):
            controlled = (
                (None, None, None)
                if model is None or reason
                else _controlled(model, mine, place[number], counts, seed)
            )
            notes = [
                *notes_on(mine, same_answer[number], prompts),
                *([reason] if reason else notes_on_lengths(mine)),
            ]
            systems[name] = _result(
                _raw(mine, counts), controlled, mine, same_answer[number], notes
            )
            advance(number + 1)
    widest, least_sure = max(
        ((one.win_rate_high - one.win_rate_low) / 2, number)
        for number, one in enumerate(systems.values())
    )
    told = advice(systems[names[least_sure]].prompts, widest, _spread(of_system[least_sure]))
    notes = (
        notes_on_left_out(found)
        + notes_on_repeated(found.rows)
        + [
            f"{name}: {note}" if len(names) > 1 else note
            for name, one in systems.items()
            for note in one.notes
        ]
    )
    if len(names) == 1 and model is not None:
        notes.append(_ALONE)
    return Result(
        n=len(rows.prompt),
        prompts=prompts,
        half_width=widest,
        advice=told,
        notes=notes,
        systems=systems,
    )


def _columns(found: Sequence[Comparison]) -> tuple[list[str], Rows, list[float]]:
    """The systems' names and the rows, both in an order that the file's has no part in; of each
    system the share of its commonest answer.
    """
    names, system = np.unique([one.system for one in found], return_inverse=True)
    _, prompt = np.unique([one.instruction for one in found], return_inverse=True)
    answer = np.array([one.answer for one in found])
    delta = np.array([one.delta for one in found], dtype=np.float64)
    preference = np.array([one.preference for one in found], dtype=np.float64)
    order = np.lexsort((preference, delta, prompt, system))
    rows = Rows(
        prompt=prompt[order], system=system[order], delta=delta[order], preference=preference[order]
    )
    commonest = [
        float(np.unique(answer[system == number], return_counts=True)[1].max())
        for number in range(len(names))
    ]
    return (
        names.tolist(),
        rows,
        [count / int((system == number).sum()) for number, count in enumerate(commonest)],
    )


def _fit(
    rows: Rows, wanted: list[bool], prompts: int, difficulty: bool
) -> tuple[Model | None, Ints]:
    """The model of the wanted systems (None without any), and where in it each system stands."""
    place = np.cumsum(wanted) - 1
    keep = np.array(wanted)[rows.system]
    if not keep.any():
        return None, place
    kept = Rows(
        prompt=rows.prompt[keep],
        system=place[rows.system[keep]],
        delta=rows.delta[keep],
        preference=rows.preference[keep],
    )
    return fit(kept, sum(wanted), prompts, difficulty), place


def _uncontrollable(rows: Rows) -> str | None:
    """Why the length-controlled figures of a system cannot be had."""
    prompts = len(np.unique(rows.prompt))
    if prompts < FOLDS:
        return (
            f"no length-controlled win rate: it needs {FOLDS} prompts or more to tell length from "
            f"quality, and there {_are(prompts)}."
        )
    if rows.preference.min() == rows.preference.max() and rows.preference[0] in (0.0, 1.0):
        return (
            f"no length-controlled win rate: every preference is {rows.preference[0]:g}, so length "
            "makes no difference that could be seen."
        )
    if rows.delta.min() == rows.delta.max() != 0:
        return (
            "no length-controlled win rate: all answers differ from the baseline's by the same "
            "length, so length and quality are one."
        )
    return None


def _raw(rows: Rows, counts: list[Floats]) -> tuple[float, float, float]:
    """The mean preference and its interval."""
    mean, own = float(rows.preference.mean()), len(np.unique(rows.prompt))
    if own == 1:
        return mean, 0.0, 1.0
    wins, judged = (
        np.bincount(rows.prompt, rows.preference, len(counts[0][0])),
        np.bincount(rows.prompt, minlength=len(counts[0][0])),
    )
    drawn = np.concatenate([np.stack([block @ wins, block @ judged]) for block in counts], axis=1)
    there = drawn[1] > 0
    cell = cell_of(rows.preference) / len(rows.prompt)
    return mean, *share_interval(
        mean, drawn[0][there] / drawn[1][there], own, wins - mean * judged, cell
    )


def _controlled(
    model: Model, rows: Rows, place: int, counts: list[Floats], seed: int
) -> tuple[float, float, float]:
    mine = Rows(
        prompt=rows.prompt,
        system=np.full_like(rows.system, place),
        delta=rows.delta,
        preference=rows.preference,
    )
    drawn = [
        model.resampled(mine, block, [seed, place, number]) for number, block in enumerate(counts)
    ]
    rate, own = model.win_rate(mine), len(np.unique(rows.prompt))
    return rate, *share_interval(rate, np.concatenate(drawn), own)


def _result(
    raw: tuple[float, float, float],
    controlled: tuple[float | None, ...],
    rows: Rows,
    same_answer: float,
    notes: list[str],
) -> SystemResult:
    rate, low, high = (100 * one for one in raw)
    length_controlled = [None if one is None else 100 * one for one in controlled]
    return SystemResult(
        win_rate=rate,
        win_rate_low=low,
        win_rate_high=high,
        length_controlled_win_rate=length_controlled[0],
        length_controlled_low=length_controlled[1],
        length_controlled_high=length_controlled[2],
        n=len(rows.prompt),
        prompts=len(np.unique(rows.prompt)),
        length_difference=float(rows.delta.mean()),
        same_answer=100 * same_answer,
        suspect=is_suspect(rows, same_answer),
        notes=notes,
    )


def _spread(rows: Rows) -> float:
    """The standard deviation of what a prompt comes to, with all its rows."""
    _, place, times = np.unique(rows.prompt, return_inverse=True, return_counts=True)
    away = np.bincount(place, rows.preference - rows.preference.mean()) * len(times) / len(place)
    return float(np.sqrt((away**2).sum() / max(1, len(times) - 1)))


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"

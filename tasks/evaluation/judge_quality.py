"""How good a judge is: what it says of labelled pairs, against what people said of them.

    prompts_of(pairs), answers_of(pairs, side)          ->  prompts and completions that any judge can be given
    measure_judge(pairs' prompts, answers, verdicts)    ->  metrics: pairwise agreement, exact match, Spearman, Kendall, 5-best
The measures are those of Self-Rewarding (arXiv 2401.10020, section 3.2). Test: pytest
tests/tasks/evaluation/test_judge_quality.py
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

from dapflow.storage import DatasetRef, ModelRef
from dapflow.storage.rows import PairRow
from dapflow.tasks.figures import Figure, rows_of, share
from dapflow.tasks.prompts.row import prompt_row
from dapflow.tasks.statistics import bootstrap_mean
from dapflow.tasks.step import Contents, Out, Work, contents_of, step

AGREEMENT, CHANGE = "pairwise_agreement", "agreement_change"
_CHANCE = 0.5
_NO_PAIRS = "there are no labelled pairs"
_TOP = 1e-9  # a mean this near to the highest score is the highest


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A pair that people have ordered. better, worse: what the judge gives them, its score or the
    probability that it wins; None without a verdict."""

    prompt: str
    chosen: str
    rejected: str
    better: float | None
    worse: float | None


def _labelled(pairs: DatasetRef, rows: int, answers: int) -> Contents:
    """So many rows of the pairs, with none of their answers or one."""
    tokens = answers * contents_of(pairs).answer_tokens / 2
    return replace(contents_of(pairs), rows=rows, prompts=rows, answer_tokens=tokens)


@step(
    "prompts",
    title="prompts of labelled pairs",
    expects=lambda pairs, most, **_: min(pairs.rows, most),
    activity="arranging",
    work=lambda pairs, most: Work(makes=_labelled(pairs, min(pairs.rows, most), answers=0)),
)
def prompts_of(out: Out, pairs: DatasetRef, most: int) -> None:
    """The prompt of each pair that is not dropped, a row a pair: the first `most` of them."""
    rows = _kept(out, pairs)[:most]
    out.write(
        0, [prompt_row(out.row_id(n), row["prompt"], row["id"]) for n, row in enumerate(rows)]
    )


@step(
    "completions",
    title="{side} answers of labelled pairs",
    expects=lambda prompts, **_: prompts.rows,
    activity="arranging",
    work=lambda pairs, prompts, **_: Work(makes=_labelled(pairs, prompts.rows, answers=1)),
)
def answers_of(
    out: Out, pairs: DatasetRef, prompts: DatasetRef, side: Literal["chosen", "rejected"]
) -> None:
    """The answers on one side, in the order of the prompts."""
    texts = {row["id"]: row[side] for row in _kept(out, pairs)}
    rows = [
        {
            "id": out.row_id(n),
            "prompt_id": row["id"],
            "sample": 0,
            "text": texts[row["source"]],
            "finish_reason": "stop",
        }
        for n, row in enumerate(out.lake.prompts(prompts))
    ]
    out.write(0, rows)


@step("metrics", title="how good a judge {policy} is", expects=lambda **_: 8, activity="measuring")
def measure_judge(
    out: Out,
    policy: ModelRef,
    prompts: DatasetRef,
    chosen: DatasetRef,
    rejected: DatasetRef,
    verdicts: list[DatasetRef],
    top: float | None,
    before: DatasetRef | None = None,
) -> None:
    """verdicts: of a judge that scores, on the chosen and on the rejected answers; of one that
    compares, of the chosen against the rejected. top: the highest score that there is; None for a
    judge that compares. before: how good a judge it was an iteration before."""
    scores = {
        row["completion_id"]: row["score"] for ref in verdicts for row in out.lake.verdicts(ref)
    }
    judged = list[Judged]()
    answers = zip(out.lake.completions(chosen), out.lake.completions(rejected), strict=True)
    for prompt, (first, second) in zip(out.lake.prompts(prompts), answers, strict=True):
        better, worse = scores.get(first["id"]), scores.get(second["id"])
        if top is None and better is not None:
            worse = 1 - better
        judged.append(
            Judged(
                prompt=prompt["prompt"],
                chosen=first["text"],
                rejected=second["text"],
                better=better,
                worse=worse,
            )
        )
    rows = list(rows_of(quality(judged, top), policy.version, out.row_id))
    if before is not None:
        rows += rows_of(
            [agreement_change(out.lake.metrics(before), rows)],
            policy.version,
            out.row_id,
            first=len(rows),
        )
    out.write(0, rows)


def quality(judged: Sequence[Judged], top: float | None) -> Iterator[Figure]:
    """The figures, with 95 % intervals where there are any.

    pairwise_agreement: of the pairs that it decides, how many it orders as people do. decided,
    unread: of all pairs, how many it orders, and how many have no verdict (the rest are ties).
    exact_match: of prompts, how many whole orders are people's. spearman, kendall: mean over
    prompts, of those that it does not give one score throughout. five_best: of the answers with the
    highest score, how many are people's best.
    """
    both = [
        (one.better, one.worse)
        for one in judged
        if one.better is not None and one.worse is not None
    ]
    right, wrong = (
        sum(better > worse for better, worse in both),
        sum(better < worse for better, worse in both),
    )
    yield share(AGREEMENT, right, right + wrong, "it decides no labelled pair")
    yield share("decided", right + wrong, len(judged), _NO_PAIRS)
    yield share("unread", len(judged) - len(both), len(judged), _NO_PAIRS)
    ranked = list(_ranked(judged))
    yield share(
        "exact_match",
        sum(_same_order(*ranks) for ranks in ranked),
        len(ranked),
        "there is no prompt all answers to which have verdicts",
    )
    told = [
        (human, machine)
        for human, machine in ranked
        if len(set(human)) > 1 and len(set(machine)) > 1
    ]
    from scipy.stats import (
        kendalltau,
        spearmanr,
    )  # slow to import, and only a policy that judges itself gets here

    correlations: dict[str, Callable[..., Any]] = {"spearman": spearmanr, "kendall": kendalltau}
    for name, correlation in correlations.items():
        if not told:
            yield Figure(
                name=name,
                value=None,
                note="there is no prompt whose answers it does not give one score",
            )
        else:
            value, low, high = bootstrap_mean(
                [float(correlation(*ranks).statistic) for ranks in told], seed=0
            )
            yield Figure(name=name, value=value, low=max(low, -1.0), high=min(high, 1.0))
    if top is not None:
        best = [
            human[n] == max(human)
            for human, machine in ranked
            for n in range(len(human))
            if machine[n] >= top - _TOP
        ]
        yield share("five_best", sum(best), len(best), "it gives no answer the highest score")


def better_than_chance(metrics: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the interval of its agreement with people lies above one half."""
    return any(
        row["name"] == AGREEMENT and row["low"] is not None and row["low"] > _CHANCE
        for row in metrics
    )


def agreement_change(
    before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]
) -> Figure:
    """By how much the agreement with people has risen, with its 95 % interval (Newcombe 1998,
    method 10: of two shares from their own intervals); without a value where one of them has
    decided nothing."""
    old, new = (
        next((row for row in rows if row["name"] == AGREEMENT and row["value"] is not None), None)
        for rows in (before, now)
    )
    if old is None or new is None:
        return Figure(
            name=CHANGE,
            value=None,
            note=f"it decides no labelled pair {'now' if new is None else 'an iteration before'}",
        )
    change = new["value"] - old["value"]
    down = math.hypot(new["value"] - new["low"], old["high"] - old["value"])
    up = math.hypot(new["high"] - new["value"], old["value"] - old["low"])
    return Figure(name=CHANGE, value=change, low=change - down, high=change + up)


def _kept(out: Out, pairs: DatasetRef) -> list[PairRow]:
    return [row for row in out.lake.pairs(pairs) if row["dropped"] is None]


def _ranked(judged: Sequence[Judged]) -> Iterator[tuple[list[float], list[float]]]:
    """Of each prompt whose answers all have verdicts: what each answer is to people (times it was
    chosen, less times it was rejected), and to the judge (the mean of what it gives it)."""
    wins: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    given: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for one in judged:
        for text, win, value in ((one.chosen, 1.0, one.better), (one.rejected, -1.0, one.worse)):
            wins[one.prompt][text] += win
            given[one.prompt][text].append(value)
    for prompt, of_prompt in given.items():
        means = [_mean(values) for values in of_prompt.values()]
        known = [mean for mean in means if mean is not None]
        if len(known) == len(means):
            yield [wins[prompt][text] for text in of_prompt], known


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _same_order(human: Sequence[float], machine: Sequence[float]) -> bool:
    """Whether the judge orders all answers as people do; what is equal to people may stand in any
    order.
    """
    return all(
        (human[a] - human[b]) * (machine[a] - machine[b]) > 0
        for a, b in combinations(range(len(human)), 2)
        if human[a] != human[b]
    )

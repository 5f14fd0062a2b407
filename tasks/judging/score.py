"""A judge scores completions.

    judge(prompts, completions, by, model)  ->  verdicts, one per completion; odd cases are values
`by` says who judges (spec.py); `model` is the model of the lake that does, if one does. A judge
that compares two completions: compare.py. Test: pytest tests/tasks/judging
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.tasks.judging.judges.base import Judge, Question, Verdict, scores_of
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.spec import JudgeSpec, Opening
from dapflow.tasks.models.chat import transcript
from dapflow.tasks.step import Out, step
from dapflow.tasks.step.shards import one_at_a_time, spread

_ROWS_PER_CHUNK = 128


@step(
    "verdicts",
    title="judge {completions.rows} of {completions} by {by}",
    expects=lambda completions, **_: completions.rows,
    activity="judging",
    work=lambda prompts, completions, by, baseline, **_: by.work(
        replace(
            Material.of(completions.rows, prompts, completions),
            questions=partial(_questions, prompts=prompts, completions=completions, by=by),
            baseline=baseline is not None,
        )
    ),
)
def judge(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    by: JudgeSpec,
    model: ModelRef | None = None,
    baseline: DatasetRef | None = None,
) -> None:
    """A verdict on each completion, in its order. What was refused at sampling stays refused, and
    is not judged.

    baseline: one answer to each prompt, for a judge that compares with it.
    """
    arguments = {"prompts": prompts, "completions": completions, "baseline": baseline}
    arguments |= {"by": by, "model": model}
    if by.asked_as_a_whole:
        judge_chunks(out, **arguments)
    else:
        spread(out, judge_chunks, score_chunks(completions.rows), **arguments)


def judge_chunks(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    by: JudgeSpec,
    model: ModelRef | None,
    baseline: DatasetRef | None,
) -> None:
    """Write the chunks that are missing."""
    asked = asked_prompts(out.lake, prompts, by)
    with opened(out, by, model, baselines_of(out.lake, asked, baseline)) as judge:
        write_scores(out, asked, out.lake.rows_of(completions), judge)


def baselines_of(
    lake: Lake, prompts: Mapping[str, Mapping[str, Any]], baseline: DatasetRef | None
) -> dict[str, str]:
    """The answers of a baseline, by the text that a judge reads of their prompts."""
    answers = [] if baseline is None else lake.rows_of(baseline)
    return {question_of(prompts[row["prompt_id"]], row).prompt: row["text"] for row in answers}


@contextmanager
def opened(
    out: Out, by: JudgeSpec, model: ModelRef | None, baselines: Mapping[str, str]
) -> Iterator[Any]:
    """Whoever judges, for as long as the block lasts."""
    opening = Opening(
        lake=out.lake,
        version=out.version,
        model=model,
        baselines=baselines,
        say=out.say,
        log=out.scratch / f"server-{out.share.index}.log",
    )
    with one_at_a_time if by.in_memory else nullcontext(), by.open(opening) as judge:
        yield judge


def _questions(
    lake: Lake, prompts: DatasetRef, completions: DatasetRef, by: JudgeSpec
) -> Iterator[Question]:
    """What is asked about the completions, for the plan."""
    asked = asked_prompts(lake, prompts, by)
    return (question_of(asked[row["prompt_id"]], row) for row in lake.rows_of(completions))


def score_chunks(rows: int) -> int:
    """How many chunks the verdicts on so many rows are."""
    return -(-rows // _ROWS_PER_CHUNK)


def write_scores(
    out: Out, prompts: Mapping[str, Mapping[str, Any]], rows: Sequence[dict[str, Any]], judge: Judge
) -> None:
    """The verdicts of a judge on rows of completions, in their order. prompts: their rows by id."""
    chunks = [
        rows[first : first + _ROWS_PER_CHUNK] for first in range(0, len(rows), _ROWS_PER_CHUNK)
    ]
    missing = list(out.missing(chunks))
    judged = len(rows) - sum(len(chunk) for _, chunk in missing)

    def advance(count: int) -> None:
        nonlocal judged
        judged += count
        out.progress(judged, len(rows), "rows")

    for some in [missing] if judge.together else [[one] for one in missing]:
        questions = [
            question_of(prompts[row["prompt_id"]], row)
            for _, chunk in some
            for row in chunk
            if row["finish_reason"] != "refused"
        ]
        verdicts = dict(
            zip(
                [q.completion_id for q in questions],
                scores_of(judge, questions, advance),
                strict=True,
            )
        )
        for number, chunk in some:
            ids = [out.row_id(number * _ROWS_PER_CHUNK + place) for place in range(len(chunk))]
            out.write(number, _verdict_rows(ids, chunk, verdicts, judge.name))


def asked_prompts(lake: Lake, prompts: DatasetRef, by: JudgeSpec) -> dict[str, dict[str, Any]]:
    """The prompts by id. Raises UserError when none has what the judge needs."""
    rows = {row["id"]: row for row in lake.rows_of(prompts)}
    by.check_prompts(list(rows.values()))
    return rows


def question_of(prompt: Mapping[str, Any], row: Mapping[str, Any]) -> Question:
    """What a judge is asked about a completion. prompt, row: of the lake."""
    earlier = prompt["earlier"] or ()
    turns = (*earlier, prompt["prompt"]) if earlier else ()
    text = transcript(prompt["prompt"], earlier)
    return Question(
        completion_id=row["id"],
        prompt=text,
        completion=row["text"],
        answer=prompt["answer"],
        constraints=prompt["constraints"],
        turns=turns,
    )


def _verdict_rows(
    ids: Sequence[str],
    completions: Sequence[dict[str, Any]],
    verdicts: dict[str, Verdict],
    judge: str,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row_id, completion in zip(ids, completions, strict=True):
        verdict = verdicts.get(completion["id"]) or Verdict(
            outcome="refused", note=completion["note"]
        )
        rows.append(
            {
                "id": row_id,
                "prompt_id": completion["prompt_id"],
                "completion_id": completion["id"],
                "judge": judge,
            }
            | {"outcome": verdict.outcome, "score": verdict.score, "note": verdict.note}
        )
    return rows

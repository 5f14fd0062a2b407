"""Somebody judges the completions.

    judge(prompts, completions, by)  ->  verdicts, one per completion; odd cases are values, never labels
`by`: a reward model's reference, a ranker's, an LLM that scores, or a program.
A judge that compares two completions is in tasks/judging/compare.py, a policy that judges itself in
tasks/judging/by_policy.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef, UserError
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.judges.base import Judge, Question, Verdict, scores_of
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.programs import Program, ProgramJudge
from dapflow.tasks.judging.judges.ranker import RankerJudge
from dapflow.tasks.judging.judges.reward_model import RewardModelJudge
from dapflow.tasks.judging.work import Material, scoring
from dapflow.tasks.models.chat import transcript
from dapflow.tasks.step import Out, step
from dapflow.tasks.step.shards import one_at_a_time, spread

_ROWS_PER_CHUNK = 128
By = ModelRef | LLM | Human | Program
"""Who judges: a model of the lake, an LLM behind a server, a person (who only compares), or a
program.
"""


@step(
    "verdicts",
    title="judge {completions.rows} of {completions} by {by}",
    expects=lambda completions, **_: completions.rows,
    activity="judging",
    work=lambda prompts, completions, by, baseline: scoring(
        by,
        Material(read=(prompts, completions), answers=(completions,)),
        baseline,
        partial(_questions, prompts=prompts, completions=completions, by=by),
    ),
)
def judge(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    by: By,
    baseline: DatasetRef | None = None,
) -> None:
    """A verdict on each completion, in its order. What was refused at sampling stays refused, and
    is not judged.

    baseline: one answer to each prompt, for a judge that compares.
    """
    arguments = {"prompts": prompts, "completions": completions, "by": by, "baseline": baseline}
    if isinstance(by, LLM):
        judge_chunks(
            out, **arguments
        )  # whole: many calls at once as it is, and one budget and one rate for them all
    else:
        spread(out, judge_chunks, score_chunks(completions.rows), **arguments)


def judge_chunks(
    out: Out, prompts: DatasetRef, completions: DatasetRef, by: By, baseline: DatasetRef | None
) -> None:
    """Write the chunks that are missing."""
    asked = asked_prompts(out.lake, prompts, by)
    answers = [] if baseline is None else out.lake.rows_of(baseline)
    baselines = {question_of(asked[row["prompt_id"]], row).prompt: row["text"] for row in answers}
    with (
        one_at_a_time if isinstance(by, ModelRef) else nullcontext(),
        judge_for(out, by, baselines) as judge,
    ):
        write_scores(out, asked, out.lake.rows_of(completions), judge)


def _questions(
    lake: Lake, prompts: DatasetRef, completions: DatasetRef, by: By
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


@contextmanager
def judge_for(out: Out, by: By, baselines: Mapping[str, str]) -> Iterator[Judge]:
    """Whoever judges, for as long as the block lasts. baselines: an answer by prompt, for a judge
    that compares.
    """
    if isinstance(by, LLM):
        with llm_judge(out.lake, out.version, by, out.say) as judge:
            yield judge
    else:
        assert not isinstance(by, Human), "people compare"
        yield make_judge(out.lake, by, baselines)


def asked_prompts(lake: Lake, prompts: DatasetRef, by: By) -> dict[str, dict[str, Any]]:
    """The prompts by id. Raises UserError when the judge needs reference answers and none has one."""
    rows = {row["id"]: row for row in lake.rows_of(prompts)}
    if (
        isinstance(by, Program)
        and by.needs_answer
        and all(row["answer"] is None for row in rows.values())
    ):
        raise UserError(
            f"The judge {by} needs the right answers, and no prompt has one: give each line of prompts.source an `answer`."
        )
    return rows


def make_judge(lake: Lake, by: ModelRef | Program, baselines: Mapping[str, str]) -> Judge:
    """The judge that a reference or a program stands for. baselines: an answer by prompt."""
    if isinstance(by, Program):
        return ProgramJudge(by)
    return (
        RankerJudge(lake, by, baselines)
        if lake.model(by)["role"] == "ranker"
        else RewardModelJudge(lake, by)
    )


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

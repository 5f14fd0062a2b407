"""Somebody judges the completions.

    judge(prompts, completions, by)  ->  verdicts, one per completion; odd cases are values, never labels
`by`: a reward model's reference, a ranker's, a policy's (it is asked for a score), an LLM that scores, or the name of a program.
A judge that compares two completions is in tasks/comparing.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from storage import DatasetRef, Lake, ModelRef
from tasks.judges.asking import llm_judge
from tasks.judges.base import Judge, Question, Verdict
from tasks.judges.human import Human
from tasks.judges.llm import LLM
from tasks.judges.policy import PolicyJudge
from tasks.judges.programs import ProgramJudge
from tasks.judges.ranker import RankerJudge
from tasks.judges.reward_model import RewardModelJudge
from tasks.step import Out, step

_ROWS_PER_CHUNK = 128
By = ModelRef | LLM | Human | str
"""Who judges: a model of the lake, an LLM behind a server, a person (who only compares), or a program by name."""


@step("verdicts", title="judge {completions.rows} of {completions} by {by}", expects=lambda completions, **_: completions.rows)
def judge(out: Out, prompts: DatasetRef, completions: DatasetRef, by: By, baseline: DatasetRef | None = None) -> None:
    """A verdict on each completion, in its order. What was refused at sampling stays refused, and is not judged.

    baseline: one answer to each prompt, for a judge that compares.
    """
    texts = {row["id"]: row["prompt"] for row in out.lake.rows_of(prompts)}
    rows = out.lake.rows_of(completions)
    answers = [] if baseline is None else out.lake.rows_of(baseline)
    chunks = [rows[first : first + _ROWS_PER_CHUNK] for first in range(0, len(rows), _ROWS_PER_CHUNK)]
    missing = list(out.missing(chunks))
    judged = len(rows) - sum(len(chunk) for _, chunk in missing)

    def advance(count: int) -> None:
        nonlocal judged
        judged += count
        out.progress(judged, len(rows), "rows")

    with judge_for(out, by, {texts[row["prompt_id"]]: row["text"] for row in answers}) as judge:
        for some in [missing] if judge.together else [[one] for one in missing]:
            questions = [_question(texts, row) for _, chunk in some for row in chunk if row["finish_reason"] != "refused"]
            verdicts = dict(zip([q.completion_id for q in questions], judge.judge(questions, advance), strict=True))
            for number, chunk in some:
                ids = [out.row_id(number * _ROWS_PER_CHUNK + place) for place in range(len(chunk))]
                out.write(number, _verdict_rows(ids, chunk, verdicts, judge.name))


@contextmanager
def judge_for(out: Out, by: By, baselines: Mapping[str, str]) -> Iterator[Judge]:
    """Whoever judges, for as long as the block lasts. baselines: an answer by prompt, for a judge that compares."""
    if isinstance(by, LLM):
        with llm_judge(out.lake, out.version, by, out.say) as judge:
            yield judge
    else:
        assert not isinstance(by, Human), "people compare"
        yield make_judge(out.lake, by, baselines)


def make_judge(lake: Lake, by: ModelRef | str, baselines: Mapping[str, str]) -> Judge:
    """The judge that a reference or a name stands for. baselines: an answer by prompt. Raises UserError for an unknown name."""
    if isinstance(by, str):
        return ProgramJudge(by)
    role = lake.model(by)["role"]
    if role == "ranker":
        return RankerJudge(lake, by, baselines)
    return PolicyJudge(lake, by) if role == "policy" else RewardModelJudge(lake, by)


def same_judge(lake: Lake, one: By, other: By) -> bool:
    """Whether two judges are one: the same weights, the same model behind a server whatever it is asked, the same program."""
    if isinstance(one, ModelRef) and isinstance(other, ModelRef):
        return one.version == other.version or lake.model(one)["digest"] == lake.model(other)["digest"]
    if isinstance(one, LLM) and isinstance(other, LLM):
        return one.endpoint.model == other.endpoint.model
    return one == other


def _question(texts: dict[str, str], row: dict[str, Any]) -> Question:
    return Question(completion_id=row["id"], prompt=texts[row["prompt_id"]], completion=row["text"])


def _verdict_rows(
    ids: Sequence[str], completions: Sequence[dict[str, Any]], verdicts: dict[str, Verdict], judge: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row_id, completion in zip(ids, completions, strict=True):
        verdict = verdicts.get(completion["id"]) or Verdict(outcome="refused", note=completion["note"])
        rows.append(
            {"id": row_id, "prompt_id": completion["prompt_id"], "completion_id": completion["id"], "judge": judge}
            | {"outcome": verdict.outcome, "score": verdict.score, "note": verdict.note}
        )
    return rows

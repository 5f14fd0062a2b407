"""Conversations of two turns: each policy answers a prompt, and then a follow-up to its own answer;
the judge scores both turns, in the manner of MT-Bench (arXiv 2306.05685, section 3.1).

    load_first_turns(source)                     ->  prompts
    follow_up(tasks, source, answers)            ->  prompts: the second turn, each with the first turn and the policy's answer before it
    whole_conversations(asked, second)           ->  completions: all that follows the prompt, for a judge that compares two answers
    evaluate_turn(policy, turn, ...)             ->  metrics: who wins that turn
The shipped set is tasks/prompts/data/two_turns.jsonl, one {"prompt": ..., "follow_up": ...} a line.
Test: pytest tests/flows/test_two_turns.py
"""

from dataclasses import replace
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, ModelRef
from dapflow.storage.rows import VerdictRow
from dapflow.tasks.evaluation.contests import (
    by_comparison,
    by_scores,
    prompt_wins,
    scores_of,
    why_undecided,
)
from dapflow.tasks.figures import mean, paired, rows_of
from dapflow.tasks.metrics import SIDES
from dapflow.tasks.models.chat import transcript
from dapflow.tasks.prompts.load import prompt_text
from dapflow.tasks.prompts.row import prompt_row, text_digest
from dapflow.tasks.prompts.sources import read_source
from dapflow.tasks.step import Contents, Out, Work, contents_of, step
from dapflow.tasks.step.work import PROMPT_TOKENS

TURNS_FILE = "two_turns.jsonl"
_COMPARES = "the judge compares answers and gives no scores"


class TwoTurns(BaseModel):
    """Two-turn prompts that the policy before and the new one are judged on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str | None = Field(
        default=None,
        description=(
            "`shipped`, or a .jsonl or .parquet file with `prompt` and `follow_up`; empty: none, "
            "for it takes time"
        ),
    )


@step(
    "prompts",
    title="load two-turn prompts",
    expects=lambda source, **_: len(read_source(source, TURNS_FILE)),
    activity="loading",
)
def load_first_turns(out: Out, source: str, digest: str) -> None:
    """The first turns. `digest`: of the source's content. Raises UserError, naming the line, for
    one without a follow-up.
    """
    rows = list[dict[str, Any]]()
    for n, record in enumerate(read_source(source, TURNS_FILE)):
        record.text("follow_up")
        rows.append(prompt_row(out.row_id(n), prompt_text(record), record.place, split="held_out"))
    out.write(0, rows)


def _following_up(answers: Contents) -> Contents:
    """The prompt of a second turn: the first, its answer, and the follow-up."""
    tokens = answers.prompt_tokens + answers.answer_tokens + PROMPT_TOKENS
    return replace(answers, prompt_tokens=tokens, answer_tokens=0)


def _conversing(second: Contents) -> Contents:
    """The second turn's prompt and its answer, as an answer to the first turn."""
    return Contents(
        rows=second.rows,
        prompts=second.prompts,
        answer_tokens=second.prompt_tokens - PROMPT_TOKENS + second.answer_tokens,
    )


@step(
    "prompts",
    title="follow up {answers.rows} of {answers}",
    expects=lambda answers, **_: answers.rows,
    activity="arranging",
    work=lambda answers, **_: Work(makes=_following_up(contents_of(answers))),
)
def follow_up(out: Out, tasks: DatasetRef, source: str, digest: str, answers: DatasetRef) -> None:
    """The second turn of each task that has an answer, which may be empty; `parents`: the first
    turn.
    """
    asked, further = {row["id"]: row for row in out.lake.prompts(tasks)}, _follow_ups(source)
    rows = list[dict[str, Any]]()
    for answer in out.lake.completions(answers):
        if answer["finish_reason"] != "refused":
            task = asked[answer["prompt_id"]]
            text, earlier = further[task["source"]], [task["prompt"], answer["text"]]
            row = prompt_row(
                out.row_id(len(rows)), text, task["source"], split="held_out", parents=[task["id"]]
            )
            digest = text_digest(transcript(text, earlier))
            rows.append(row | {"digest": digest, "earlier": earlier})
    out.write(0, rows)


@step(
    "completions",
    title="conversations of {second}",
    expects=lambda second, **_: second.rows,
    activity="arranging",
    work=lambda second, **_: Work(makes=_conversing(contents_of(second))),
)
def whole_conversations(out: Out, asked: DatasetRef, second: DatasetRef) -> None:
    """Answer, follow-up and second answer as one text, as an answer to the first turn. asked: the
    second turns, which `second` answers.

    MT-Bench shows a judge that compares both conversations in full. Where the second answer is
    empty, so is the text.
    """
    turns = {row["id"]: row for row in out.lake.prompts(asked)}
    rows = list[dict[str, Any]]()
    for answer in out.lake.completions(second):
        turn = turns[answer["prompt_id"]]
        assert turn["earlier"] is not None, "it is a second turn"
        whole = f"{turn['earlier'][1]}\n\nUser: {turn['prompt']}\n\nAssistant: {answer['text']}"
        row = {
            "id": out.row_id(len(rows)),
            "prompt_id": turn["parents"][0],
            "sample": 0,
            "policy": answer["policy"],
            "text": whole if answer["text"].strip() else "",
        }
        rows.append(
            row
            | {"token_ids": [], "logprobs": []}
            | {key: answer[key] for key in ("finish_reason", "seed", "note")}
        )
    out.write(0, rows)


@step(
    "metrics",
    title="evaluate turn {turn} of two",
    expects=lambda **_: 4,
    activity="measuring",
)
def evaluate_turn(
    out: Out,
    policy: ModelRef,
    turn: int,
    asked: list[DatasetRef],
    answers: list[DatasetRef],
    judged: list[DatasetRef],
    seed: int,
) -> None:
    """Win rate and rewards of one turn, with 95 % intervals over the tasks.

    asked, answers: of the policy before and of the new one; judged: their scores, or the one
    comparison of the two.
    """
    task_of = {
        row["id"]: (row["parents"] or [row["id"]])[0]
        for ref in asked
        for row in out.lake.prompts(ref)
    }
    verdicts = [
        [_on_task(row, task_of[row["prompt_id"]]) for row in out.lake.verdicts(ref)]
        for ref in judged
    ]
    scored = len(verdicts) == len(SIDES)
    decisions = by_scores(verdicts[0], verdicts[1]) if scored else by_comparison(verdicts[0])
    old, new = (
        {task: fmean(scores) for task, scores in scores_of(rows).items()}
        for rows in (verdicts[0], verdicts[-1])
    )
    why = why_undecided(
        [row for ref in answers for row in out.lake.completions(ref)],
        [row for rows in verdicts for row in rows],
    )
    why_unscored = why if scored else _COMPARES
    figures = [
        mean(f"turn_{turn}_win_rate", prompt_wins(decisions), seed, why, bounded=True),
        mean(f"turn_{turn}_reward_before", old, seed, why_unscored),
        mean(f"turn_{turn}_reward_after", new, seed, why_unscored),
        paired(f"turn_{turn}_reward_gain", old, new, seed, why_unscored),
    ]
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def _on_task(verdict: VerdictRow, task: str) -> VerdictRow:
    """The verdict as of the task, whichever turn of it was judged."""
    moved = verdict.copy()
    moved["prompt_id"] = task
    return moved


def _follow_ups(source: str) -> dict[str, str]:
    """By the place of the first turn."""
    return {record.place: record.text("follow_up") for record in read_source(source, TURNS_FILE)}

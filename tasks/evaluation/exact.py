"""Tasks with one right answer, which an aligned policy must not get worse at: arithmetic, copying,
formats, a little knowledge.

    load_tasks(source)                                  ->  prompts
    check_answers(policy, tasks, source, before, after) ->  metrics: the share solved by both policies, and what was gained
The shipped set is tasks/prompts/data/exact.jsonl, one {"prompt": ..., "answers": [...]} a line.
Test: pytest tests/tasks/evaluation/test_exact.py
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.storage.rows import CompletionRow
from dapflow.tasks.figures import mean, paired, rows_of
from dapflow.tasks.prompts.load import prompt_text
from dapflow.tasks.prompts.row import prompt_row
from dapflow.tasks.prompts.sources import Record, read_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.step import Out, step

TASKS_FILE = "exact.jsonl"
_AROUND = " \t\n\"'`*.!“”‘’"
_NONE = "no task was answered"


class Exact(BaseModel):
    """Exact-answer tasks that are solved by the policy before and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str | None = Field(
        default="shipped",
        description="`shipped`, or a .jsonl or .parquet file with `prompt` and `answers`; empty: none",
    )
    max_tokens: int = Field(default=12, ge=1, description="of an answer")

    def sampling(self, chat_template: str | None) -> Sampling:
        """The likeliest answer, without a system prompt: what is measured is the policy, not
        chance.
        """
        return Sampling(
            n=1, temperature=0.0, max_tokens=self.max_tokens, chat_template=chat_template
        )


@step(
    "prompts",
    title="load exact-answer tasks",
    expects=lambda source, **_: len(read_source(source, TASKS_FILE)),
    activity="loading",
)
def load_tasks(out: Out, source: str, digest: str) -> None:
    """The tasks' prompts. `digest`: of the source's content. Raises UserError, naming the line, for
    a task without answers.
    """
    records = read_source(source, TASKS_FILE)
    _answers(records)
    rows = [
        prompt_row(out.row_id(n), prompt_text(record), record.place, split="held_out")
        for n, record in enumerate(records)
    ]
    out.write(0, rows)


@step("metrics", title="check exact answers", expects=lambda **_: 3, activity="measuring")
def check_answers(
    out: Out,
    policy: ModelRef,
    tasks: DatasetRef,
    source: str,
    digest: str,
    before: DatasetRef,
    after: DatasetRef,
    seed: int,
) -> None:
    """The share of tasks that each side solves, and the difference on the same tasks: below zero
    with its whole interval, it got worse.
    """
    prompts = {row["id"]: row["prompt"] for row in out.lake.prompts(tasks)}
    answers = _answers(read_source(source, TASKS_FILE))
    old, new = (solved(out.lake.completions(ref), prompts, answers) for ref in (before, after))
    figures = [
        mean("exact_answers_before", old, seed, _NONE, bounded=True),
        mean("exact_answers_after", new, seed, _NONE, bounded=True),
        paired("exact_answers_change", old, new, seed, _NONE, bounded=True),
    ]
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def solved(
    completions: Sequence[CompletionRow],
    prompts: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """For each task the share of its answers that are right; what was refused before sampling is no
    answer.
    """
    right = defaultdict[str, list[float]](list)
    for row in completions:
        if row["finish_reason"] != "refused":
            right[row["prompt_id"]].append(
                float(is_right(row["text"], answers[prompts[row["prompt_id"]]]))
            )
    return {prompt: fmean(some) for prompt, some in right.items()}


def is_right(answer: str, wanted: Sequence[str]) -> bool:
    """Whether the answer is one of those wanted and nothing else, but for case, quotation marks,
    emphasis and a full stop.
    """
    return _plain(answer) in {_plain(one) for one in wanted}


def _plain(text: str) -> str:
    return text.strip(_AROUND).lower()


def _answers(records: Sequence[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        answers = record.fields.get("answers")
        if (
            not isinstance(answers, list)
            or not answers
            or not all(isinstance(one, str) and _plain(one) for one in answers)
        ):
            raise UserError(f"{record.place}: `answers` must be a list of non-empty strings.")
        found[prompt_text(record)] = answers
    return found

"""Whom the new policy is measured against, besides the one before it: another policy of the lake,
or answers from a file.

    policy_of("models@3f9c01", initial)  ->  that policy
    load_baseline_answers(source, prompts)        ->  completions: one answer to each prompt that the file has
Test: pytest tests/flows/test_measuring.py
"""

from statistics import fmean
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef, UserError
from dapflow.storage.policies import PROMOTED
from dapflow.storage.promotions import line_from, line_of
from dapflow.tasks.prompts.load import prompt_text
from dapflow.tasks.prompts.sources import read_source
from dapflow.tasks.step import Contents, Out, Work, current_lake, step
from dapflow.tasks.step.work import CHARACTERS_PER_TOKEN

FILES = (".jsonl", ".parquet", ".jsonl.gz")


def policy_of(name: str, initial: ModelRef) -> ModelRef:
    """The policy of that id, or the one that was promoted last of those that come from `initial`.
    Raises UserError when there is none.
    """
    lake = current_lake()
    ref = promoted(lake, initial) if name == PROMOTED else lake.ref(name)
    if not isinstance(ref, ModelRef) or lake.model(ref)["role"] != "policy":
        raise UserError(
            f"evaluation.baselines: {name} is no policy of the lake: `dapflow datasets --kind "
            "models` lists them."
        )
    return ref


def promoted(lake: Lake, initial: ModelRef) -> ModelRef:
    """The policy that was promoted last of those that come from `initial`. Raises UserError while
    none was.
    """
    if (policy := line_of(lake, line_from(lake, initial)).policy) is None:
        raise UserError(
            "evaluation.baselines: no policy that comes from this recipe's has been promoted in "
            "this lake; name one by its id."
        )
    return ModelRef("models", policy, 1)


def _loading(source: str, prompts: DatasetRef, **_: Any) -> Work:
    answers = _answers_in(source).values()
    tokens = fmean(len(text) for text in answers) / CHARACTERS_PER_TOKEN
    return Work(makes=Contents(rows=prompts.rows, prompts=prompts.rows, answer_tokens=tokens))


@step(
    "completions",
    title="load answers from {source}",
    expects=lambda prompts, **_: prompts.rows,
    activity="loading",
    work=_loading,
)
def load_baseline_answers(out: Out, source: str, digest: str, prompts: DatasetRef) -> None:
    """The answers of a file (`prompt` or `instruction`; `completion`, `answer` or `output`) to the
    prompts.

    `digest`: of the file's content. A prompt that the file does not answer gets a refused row that
    says so. Raises UserError where it answers none.
    """
    answers = _answers_in(source)
    rows = out.lake.prompts(prompts)
    if not any(row["prompt"] in answers for row in rows):
        raise UserError(
            f"{source} answers none of the {len(rows)} held-out prompts: `dapflow show prompts` "
            "prints them."
        )
    out.write(
        0,
        [
            _row(out.row_id(n), row["id"], source, answers.get(row["prompt"]))
            for n, row in enumerate(rows)
        ],
    )


def _answers_in(source: str) -> dict[str, str]:
    """The answers of a file by prompt."""
    return {
        prompt_text(record): record.text("completion", "answer", "output")
        for record in read_source(source, "")
    }


def _row(row_id: str, prompt_id: str, source: str, text: str | None) -> dict[str, Any]:
    row = {
        "id": row_id,
        "prompt_id": prompt_id,
        "sample": 0,
        "policy": source,
        "text": text or "",
        "token_ids": [],
        "logprobs": [],
    }
    return row | {
        "finish_reason": "refused" if text is None else "stop",
        "note": f"{source} has no answer" if text is None else None,
    }

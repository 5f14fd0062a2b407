"""How long people's own texts are, for a plan: what a model reads of them.

Test: pytest tests/flows/planning/test_plan.py
"""

from functools import cache
from statistics import fmean

from dapflow.storage import DatasetRef
from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.sources import read_source
from dapflow.tasks.step import Contents, Work
from dapflow.tasks.step.work import CHARACTERS_PER_TOKEN

_PREFERENCES_FILE = "preferences.jsonl"


def preferences(source: str, digest: str, rows: int) -> Work:
    """Of a step that loads so many of people's pairs."""
    prompt, answers = _lengths(source, digest)
    return Work(
        makes=Contents(rows=rows, prompts=rows, prompt_tokens=prompt, answer_tokens=answers)
    )


def preference_prompts(source: str, digest: str, rows: int) -> Work:
    """Of a step that loads the prompts of so many."""
    prompt, _ = _lengths(source, digest)
    return Work(makes=Contents(rows=rows, prompts=rows, prompt_tokens=prompt))


def preference_answers(source: str, digest: str, prompts: DatasetRef, of_each: int) -> Work:
    """Of a step that loads one of people's answers to each prompt, or both."""
    prompt, answers = _lengths(source, digest)
    rows = prompts.rows * of_each
    return Work(
        makes=Contents(
            rows=rows, prompts=prompts.rows, prompt_tokens=prompt, answer_tokens=answers / 2
        )
    )


@cache
def _lengths(source: str, digest: str) -> tuple[float, float]:
    """Tokens of a pair's prompt and of its two answers, on average over the source."""
    rows = [preference(record) for record in read_source(source, _PREFERENCES_FILE)]
    prompt = fmean(len(row["prompt"]) for row in rows)
    answers = fmean(len(row["chosen"]) + len(row["rejected"]) for row in rows)
    return prompt / CHARACTERS_PER_TOKEN, answers / CHARACTERS_PER_TOKEN

"""How many answers go on to be paired or trained on, at most: for a plan.

Test: pytest tests/flows/planning/test_plan.py
"""

from collections.abc import Sequence

from dapflow.storage import DatasetRef
from dapflow.tasks.step import Contents, Work, contents_of


def accepting(prompts: int, completions: Sequence[DatasetRef], most: int | None) -> Work:
    """Of a step that accepts among the completions of so many prompts, `most` of each."""
    answers = [contents_of(ref) for ref in completions]
    candidates = sum(answer.rows for answer in answers)
    accepted = candidates if most is None else min(candidates, prompts * most)
    return Work(
        makes=Contents(
            rows=accepted,
            prompts=prompts,
            prompt_tokens=max(answer.prompt_tokens for answer in answers),
            answer_tokens=max(answer.answer_tokens for answer in answers),
        )
    )

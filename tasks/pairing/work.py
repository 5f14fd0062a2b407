"""How many answers go on to be paired or trained on, at most: for a plan.

Test: pytest tests/flows/planning/test_plan.py
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dapflow.storage import DatasetRef
from dapflow.tasks.step import Contents, Work, contents_of

if TYPE_CHECKING:
    from dapflow.tasks.pairing.acceptance import Acceptance


def accepting(prompts: int, completions: Sequence[DatasetRef], acceptance: "Acceptance") -> Work:
    """Of a step that accepts among the completions of so many prompts."""
    answers = [contents_of(ref) for ref in completions]
    candidates = sum(answer.rows for answer in answers)
    of_each = {"rso": acceptance.keep, "best": 1}.get(acceptance.rule)
    accepted = candidates if of_each is None else min(candidates, prompts * of_each)
    return Work(
        makes=Contents(
            rows=accepted,
            prompts=prompts,
            prompt_tokens=max(answer.prompt_tokens for answer in answers),
            answer_tokens=max(answer.answer_tokens for answer in answers),
        )
    )

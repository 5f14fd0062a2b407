"""Exact answers: what is right, what is not, and the shipped set."""

import pytest

from dapflow.tasks.evaluation.exact import TASKS_FILE, is_right, solved
from dapflow.tasks.prompts.sources import read_source


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("12", True),
        (" **12.** ", True),
        ("“12”", True),
        ("The answer is 12.", False),
        ("112", False),
        ("", False),
    ],
)
def test_only_the_answer_and_nothing_else_is_right(answer: str, right: bool) -> None:
    assert is_right(answer, ["12"]) is right


def test_what_was_refused_is_no_answer() -> None:
    rows = [
        {"prompt_id": "a", "text": "yes", "finish_reason": "stop"},
        {"prompt_id": "b", "text": "", "finish_reason": "refused"},
    ]
    assert solved(rows, {"a": "Is it?", "b": "Why?"}, {"Is it?": ["Yes"], "Why?": ["so"]}) == {
        "a": 1.0
    }


def test_every_shipped_task_has_its_own_prompt_and_an_answer_short_enough_to_give() -> None:
    records = read_source("shipped", TASKS_FILE)
    assert len({record.text("prompt") for record in records}) == len(records) == 40
    assert all(
        len(answer) <= 15 and is_right(answer, [answer])
        for record in records
        for answer in record.fields["answers"]
    )

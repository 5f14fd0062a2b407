"""Columns that belong to the prompt: joined where a form says so, refused by name elsewhere,
wherever records are read.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.storage import UserError
from dapflow.tasks.prompts.answer_file import sheet_of
from dapflow.tasks.prompts.columns import check_columns, normal
from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.load import prompt_text
from dapflow.tasks.prompts.sources import Record

PAIR = {"chosen": "Mint.", "rejected": "Rust."}


def record(**fields: Any) -> Record:
    return Record(place="herbs.jsonl:7", fields=fields)


def test_alpacas_input_stands_below_its_instruction() -> None:
    fields = {
        "instruction": "Which herb is it?",
        "input": "It smells of toothpaste.\n\nIt is green.",
    }
    joined = "Which herb is it?\n\nIt smells of toothpaste.\n\nIt is green."
    assert preference(record(**fields, **PAIR))["prompt"] == joined
    assert prompt_text(record(**fields)) == joined
    for nothing in ("", "  ", None, "<noinput>", float("nan")):
        assert (
            prompt_text(record(instruction="Which herb is it?", input=nothing))
            == "Which herb is it?"
        )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("system", "Speak like a gardener."),
        ("system_prompt", "Speak like a gardener."),
        ("systemPrompt", "Speak like a gardener."),
        ("preamble", "Speak like a gardener."),
        ("persona", "A gardener."),
        ("instructions", "Speak like a gardener."),
        ("System-Message", "Speak like a gardener."),
        ("input", "A leaf."),
        ("context", ["It is green."]),
        ("contexts", {"texts": ["It is green."], "n": 1}),
        ("retrieved_passages", [{"title": "Mint", "text": "It is green."}]),
        ("document", "It is green."),
        ("history", [["Hello", "Good morning"]]),
        ("conversation_history", [{"role": "user", "content": "Hello"}]),
        ("previous_messages", "Hello"),
        ("chat history", "Hello"),
        (
            "messages",
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Which herb is it?"},
            ],
        ),
        ("instruction", "Answer in one word."),
        ("question", "What is green?"),
        ("images", ["leaf.png"]),
    ],
)
def test_a_column_that_says_more_than_the_prompt_is_refused_by_name(
    column: str, value: Any
) -> None:
    fields = {"prompt": "Which herb is it?", column: value}
    for read in (
        lambda: preference(record(**fields, **PAIR)),
        lambda: prompt_text(record(**fields)),
    ):
        with pytest.raises(
            UserError, match=rf"herbs\.jsonl:7: the column `{column}` belongs to the prompt"
        ):
            read()


@pytest.mark.parametrize(
    "more",
    [
        {
            "system": "",
            "context": None,
            "history": [],
            "input": " ",
            "documents": [{"text": ""}],
            "passage": float("nan"),
        },
        {
            "input_tokens": 12,
            "turns": 1,
            "context_length": 2048,
            "system_id": "s-4",
            "document_title": "Herbs",
            "previous": False,
        },
        {
            "input_ids": [3, 1, 2],
            "models": ["a", "b"],
            "topic": "herbs",
            "source": "a book",
            "correct_answers": ["mint"],
        },
        {
            "messages": [
                {"role": "user", "content": "Which herb is it?"},
                {"role": "assistant", "content": "Mint."},
            ]
        },
        {"instruction": "Which herb is it?", "question": "Which herb is it?"},
        {"messages_chosen": [{"role": "user", "content": "another"}]},
    ],
)
def test_a_column_that_says_nothing_more_is_no_matter(more: dict[str, Any]) -> None:
    assert preference(record(prompt="Which herb is it?", **PAIR, **more))["dropped"] is None
    assert prompt_text(record(prompt="Which herb is it?", **more)) == "Which herb is it?"


def test_a_prompt_that_holds_the_text_in_lines_of_its_own_needs_no_column() -> None:
    prompt = "Read this.\n\nIt is green.\nIt smells.\n\nWhich herb is it?"
    check_columns(
        {"prompt": prompt, "context": "It is green.\nIt smells.", "question": "Which herb is it?"},
        prompt,
        "a:1",
    )
    with pytest.raises(UserError, match="`context`"):
        check_columns(
            {"prompt": prompt, "context": "It is"}, prompt, "a:1"
        )  # in the prompt by chance


def test_a_sheet_of_answers_is_refused_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"prompt": "Which herb?", "system": "Be brief.", "completion": "Mint."})
    )
    with pytest.raises(UserError, match=r"a\.jsonl:1: the column `system`"):
        sheet_of(tmp_path / "a.jsonl")


def test_names_are_told_however_they_are_written() -> None:
    assert {
        normal(name) for name in ("systemPrompt", "System Prompt", "system-prompt", "SYSTEM_PROMPT")
    } == {"system_prompt"}

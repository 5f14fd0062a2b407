"""Instances are asked for and read back in both orders; what cannot be used is named."""

import pytest

from dapflow.tasks.self_instruct.instance_text import (
    Example,
    Order,
    faults,
    kind_question,
    read_instances,
    read_kind,
    request,
)

MOOD = Example(
    instruction="Say the mood.",
    instances=[("I won!", "glad"), ("It rains:\nagain", "sad")],
    classification=True,
)
SUM = Example(
    instruction="Add up.",
    instances=[("1 and 2", "3"), ("", "nothing to add")],
    classification=False,
)


def test_a_question_shows_both_answers_and_ends_where_the_policy_goes_on() -> None:
    text = kind_question([MOOD, SUM], "Name\na fruit.")
    assert text.endswith(
        "Task: Say the mood.\nAnswer: Yes\n\nTask: Add up.\nAnswer: No\n\nTask: Name a fruit.\nAnswer:"
    )


@pytest.mark.parametrize(
    ("reply", "order"),
    [
        (" Yes", "output-first"),
        ("**No**, it", "input-first"),
        ("no.", "input-first"),
        ("Nothing", None),
        ("", None),
        ("It is. Yes", None),
    ],
)
def test_neither_yes_nor_no_is_no_answer(reply: str, order: Order | None) -> None:
    assert read_kind(reply) == order


@pytest.mark.parametrize(("order", "example"), [("output-first", MOOD), ("input-first", SUM)])
def test_what_is_shown_reads_back_as_it_was(order: Order, example: Example) -> None:
    shown = request(order, [example], "Name a fruit.")
    assert shown.endswith("\n\nTask: Name a fruit.\n")
    written = shown.partition(f"Task: {example.instruction}\n")[2].partition("\nTask:")[0]
    assert read_instances(order, written) == list(example.instances)


@pytest.mark.parametrize(
    ("order", "reply", "instances"),
    [
        ("input-first", "Output: apple", [("", "apple")]),
        (
            "input-first",
            "Example 1\nInput: None\nOutput: a\nb\n\nExample 2\nOutput:",
            [("", "a\nb"), ("", "")],
        ),
        ("input-first", "I cannot do that.", []),
        (
            "output-first",
            "Label: glad\nInput: I won!\nLabel: sad",
            [("I won!", "glad"), ("", "sad")],
        ),
        ("output-first", "glad", []),
    ],
)
def test_replies_of_all_sorts_are_read(
    order: Order, reply: str, instances: list[tuple[str, str]]
) -> None:
    assert read_instances(order, reply) == instances


@pytest.mark.parametrize(
    ("instances", "truncated", "reasons"),
    [
        ([("a", "b"), ("a", "b"), ("", "c"), ("", "d")], False, [None, "duplicate", None, None]),
        ([("a", "b"), ("a", "c"), ("d", "e")], False, ["conflicting"] * 3),
        (
            [("a", "a"), ("b", ""), ("c", "see here:"), ("d:", "e")],
            False,
            ["identical", "empty", "unfinished", "unfinished"],
        ),
        ([("a", "b"), ("c", "d")], True, [None, "truncated"]),
        ([("", str(n)) for n in range(4)], False, [None, None, None, "too_many"]),
        ([], True, []),
    ],
)
def test_what_cannot_be_used_is_named(
    instances: list[tuple[str, str]], truncated: bool, reasons: list[str | None]
) -> None:
    assert faults(instances, truncated, most=3) == reasons

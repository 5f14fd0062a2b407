"""A list goes out, a list comes back; what cannot be used is named."""

import pytest

from dapflow.tasks.self_instruct.listing import fault, listed, listing


def test_a_listing_ends_with_the_number_of_what_is_wanted() -> None:
    *_, one, two, last = listing(["Name three\nfruits.", "Translate this sentence:"]).splitlines()
    assert (one, two, last) == ("1. Name three fruits.", "2. Translate this sentence", "3.")


@pytest.mark.parametrize(
    ("reply", "tasks"),
    [
        (
            " name a fruit.\n10. Explain rain\nto a child.\n11. Sing.",
            ["Name a fruit.", "Explain rain to a child.", "Sing."],
        ),
        ("9. Name a fruit.\n\n10) Explain rain.", ["Name a fruit.", "Explain rain."]),
        ("Sure! Here are some more:\n1. Name a fruit.", ["Name a fruit."]),
        (
            "**9.** Name a fruit.\n**10.** Explain NASA to me.",
            ["Name a fruit.", "Explain NASA to me."],
        ),
        ("Add 3.5 and 2", ["Add 3.5 and 2"]),
        ("", []),
        ("10.\n11.", []),
    ],
)
def test_a_reply_is_read_by_its_numbers(reply: str, tasks: list[str]) -> None:
    assert listed(reply) == tasks


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("Name three red fruits.", None),
        ("Name three fruits.", "too_short"),
        ("Name three red " + "and green " * 73 + "fruits.", None),  # 150 words
        ("Name three red " + "and green " * 74 + "fruits.", "too_long"),
        ("Describe the IMAGE you can see.", "not_about_text"),
        ("Go to the shop and buy milk.", "not_about_text"),
        ("Tell me how mapping a city works.", None),  # "map" stands inside a word
        ("Write a program that adds two numbers.", "program"),
        ("(a) Name three red fruits.", "punctuation"),
        ("Überlege dir drei rote Früchte.", "not_english"),
        ("Explain what the word café means.", None),
    ],
)
def test_what_cannot_be_used_is_named(task: str, reason: str | None) -> None:
    assert fault(task) == reason

"""What answers are like, against numbers worked out by hand."""

import math
from typing import Any

import pytest

from dapflow.tasks.evaluation.texts import declines, described, distinct, self_bleu
from dapflow.tasks.figures import Figure


def completions(*texts: str, finish: str = "stop") -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": f"p{n}",
            "text": text,
            "token_ids": list(range(len(text.split()))),
            "finish_reason": finish,
        }
        for n, text in enumerate(texts)
    ]


def figures(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Figure]:
    return {figure.name: figure for figure in described(before, after, seed=0)}


def test_distinct_counts_each_n_gram_once() -> None:
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a b a b", "a b"], 2) == 2 / 4  # ab, ba, ab | ab
    assert distinct(["a"], 2) is None


def test_self_bleu_by_hand() -> None:
    # Each answer against the other. Of "the cat sat" 2 of 3 words match, and with one more (2 - 1 +
    # 1) / (2 + 1) = 2/3 of its bigrams, (0 + 1) / (1 + 1) of its trigrams, 1 / 1 of none; both are
    # equally long.
    expected = (2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25
    assert self_bleu(["the cat sat", "the cat ran"]) == pytest.approx(expected)
    assert self_bleu(["one and the same answer"] * 3) == pytest.approx(1.0)
    assert self_bleu(["alone"]) is None


def test_self_bleu_counts_a_word_as_often_as_one_other_answer_has_it_and_punishes_brevity() -> None:
    # "a a a" against "a": 1 of its 3 words; (0 + 1) / (2 + 1) bigrams, 1 / 2 trigrams. "a" against
    # "a a a": all of it, but exp(1 - 3).
    longer, shorter = (1 / 3 * 1 / 3 * 1 / 2) ** 0.25, math.exp(-2)
    assert self_bleu(["a a a", "a"]) == pytest.approx((longer + shorter) / 2)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot do this.",
        "As an AI, I have no body.",
        "Sorry, but I won't.",
    ],
)
def test_an_answer_that_declines_is_told_from_one_that_does_not(answer: str) -> None:
    assert declines(answer)
    assert not declines(f"Well, he said: {answer}")
    assert not declines("I canned the peaches. Sorry is a word.")


def test_growth_is_paired_and_relative() -> None:
    found = figures(completions(*["a b"] * 20), completions(*["a b c"] * 20))
    growth = found["length_growth"]
    assert (growth.value, growth.low, growth.high) == tuple(pytest.approx(0.5) for _ in range(3))
    assert (
        found["length_before"].value,
        found["length_p90_after"].value,
        found["truncated_after"].value,
    ) == (2.0, 3.0, 0.0)


def test_answers_without_tokens_or_none_at_all_are_said_in_a_sentence() -> None:
    untold = [row | {"token_ids": []} for row in completions("a b", "c")]
    assert (
        figures(untold, untold)["length_growth"].note
        == "the server does not tell the tokens of its answers"
    )
    nothing = figures(completions("", finish="refused"), [])
    assert (
        nothing["truncated_after"].note == nothing["length_growth"].note == "no answer was sampled"
    )
    assert nothing["not_answered_before"].value == 1.0

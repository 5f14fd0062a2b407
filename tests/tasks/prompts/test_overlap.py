"""ROUGE-L: as the plain table says, and the pool finds what comparing with every text finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapflow.tasks.prompts.overlap import Overlap, Pool, rouge_l
from dapflow.tasks.words import ascii_words

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "the", "rain"]), max_size=12).map(" ".join)


def by_the_table(one: str, other: str) -> float:
    """ROUGE-L F1 from the textbook's table of longest common subsequences."""
    first, second = ascii_words(one), ascii_words(other)
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first):
        for j, its in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if word == its else max(table[i][j + 1], table[i + 1][j])
            )
    if not (common := table[-1][-1]):
        return 0.0
    precision, recall = common / len(second), common / len(first)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic: it's 3.5 kg!", ["don", "t", "panic", "it", "s", "3", "5", "kg"]),
        (
            "naïve café_au_lait",
            ["na", "ve", "caf", "au", "lait"],
        ),  # whatever is no ASCII letter or digit parts words
        ("ÉTÉ — 你好", ["t"]),
        ("\N{KELVIN SIGN}elvin", ["kelvin"]),  # lower-cased first: the Kelvin sign becomes a k
        ("?!", []),
    ],
)
def test_words_are_lower_case_runs_of_letters_and_digits(text: str, expected: list[str]) -> None:
    assert ascii_words(text) == expected


def test_rouge_l_is_the_harmonic_mean_of_both_shares() -> None:
    # "name three fruits" is common: 3 of 3 words and 3 of 4, 2 x 1 x 0.75 / 1.75
    assert rouge_l("Name three fruits.", "Name three red fruits.") == pytest.approx(6 / 7)
    assert rouge_l("fruits three name", "name three fruits") == pytest.approx(
        1 / 3
    )  # order counts: one word at most
    assert rouge_l("?!", "?!") == 0  # no words, nothing in common


@given(one=TEXTS, other=TEXTS)
def test_rouge_l_is_what_the_table_says(one: str, other: str) -> None:
    assert rouge_l(one, other) == by_the_table(one, other) == rouge_l(other, one)


@given(
    pool=st.lists(TEXTS, max_size=8),
    text=TEXTS,
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9, 1.0]),
)
def test_the_pool_finds_what_comparing_with_every_text_finds(
    pool: list[str], text: str, threshold: float
) -> None:
    scores = [by_the_table(text, other) for other in pool]
    best = max(scores, default=0.0)
    expected = Overlap(scores.index(best), best) if best > threshold else None
    assert Pool(pool, threshold).closest(text) == expected


def test_a_pool_grows() -> None:
    pool = Pool(["Name three fruits."])
    assert pool.closest("Write a poem about the sea") is None
    pool.add("Write a poem about the sea.")
    assert pool.closest("write a POEM about the sea") == Overlap(1, 1.0)
    assert len(pool) == 2


def test_at_the_threshold_is_not_above_it() -> None:
    # 7 of 10 words in order on both sides: precision and recall 0.7, and so the mean, rounded as
    # the package rounds it
    one, other = "a b c d e f g 1 2 3", "a b c d e f g 4 5 6"
    score = by_the_table(one, other)
    assert (Pool([one]).closest(other) is None) == (score <= 0.7)
    assert Pool([one], threshold=0.69).closest(other) == Overlap(0, score)

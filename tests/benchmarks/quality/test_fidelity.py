"""The world of the fidelity benchmark, and what it reads from its curves."""

import pytest

from tests.benchmarks.quality.curves import Point, gold_at, matched_kl, show_overoptimisation
from tests.benchmarks.quality.world import gold, noisy


def curve(*points: tuple[float, float]) -> list[Point]:
    return [Point(kl=kl, gold=reward, proxy=kl) for kl, reward in points]


def test_gold_counts_each_function_word_once_and_five_words_at_least() -> None:
    assert gold("", "The cat and the dog.") == 4.0  # {the, and} of 5 words
    assert gold("", "and the") == 4.0  # of 2, which count as 5
    assert gold("", "the the the the the") == 2.0
    assert gold("", "") == 0.0


def test_the_annotator_says_the_same_whichever_answer_comes_first() -> None:
    assert noisy("p", "the cat", "a dog of") == 1 - noisy("p", "a dog of", "the cat")
    right = [noisy(f"prompt {n}", "the and of to in", "the cat on fire now") for n in range(2000)]
    assert sum(right) / len(right) == pytest.approx(0.986, abs=0.01)  # sigma((10 - 4) / 1.4)


def test_curves_are_compared_only_where_both_were_measured_on_the_way() -> None:
    near, far = curve((0, 1), (1, 2), (4, 3)), curve((0, 1), (9, 4), (16, 5))
    assert matched_kl(near, far) is None
    assert matched_kl(near, curve((0, 1), (2.25, 2), (9, 3))) == 4
    assert gold_at(near, 2.25) == 2.5  # sqrt 1.5 lies half-way from 1 to 2


def test_where_a_curve_is_best_is_read_from_the_other_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first seed's highest point is its own luck: by the second's, it would be best at its end,
    and loses nothing there.
    """
    show_overoptimisation({"dpo": [curve((0, 0), (1, 5), (2, 3)), curve((0, 0), (1, 1), (2, 3))]})
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split()[1:3] == ["2,", "1"]
    assert "-1.00" in row  # lost: 3 - 3 and 1 - 3

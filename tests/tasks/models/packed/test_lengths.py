"""A prompt with an answer is never longer than a model's context: what is left out, what is kept,
and what is said. Run: pytest this file.
"""

from collections.abc import Iterator

import pytest

from dapflow.tasks.models.names import Loaded, load, release, resolve
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.lengths import fitting, lengths, say_left_out, why_unread
from dapflow.tasks.models.ranker import Comparison, Ranker


def _group(prompt: int, *answers: int, rows: tuple[str, ...] = ("pair",)) -> Group:
    rewards = tuple(float(size) for size in answers) if len(rows) == len(answers) else None
    return Group(
        prompt=(1,) * prompt,
        answers=tuple((2,) * size for size in answers),
        row_ids=rows,
        rewards=rewards,
    )


def test_the_last_token_of_an_answer_is_not_read() -> None:
    assert lengths(_group(7, 4, 1)) == [10, 7]
    assert fitting([_group(7, 4, 1)], context=10, least=2) == ([_group(7, 4, 1)], [])


@pytest.mark.parametrize("answers", [(5, 1), (1, 5)])
def test_a_pair_of_which_one_answer_is_too_long_goes_whole_and_is_counted_once(
    answers: tuple[int, int],
) -> None:
    figure = {"subject": "pair", "name": "too_long", "value": 11, "unit": "tokens"}
    assert fitting([_group(7, *answers), _group(7, 4, 4)], context=10, least=2) == (
        [_group(7, 4, 4)],
        [figure],
    )


def test_of_a_list_only_the_answers_that_are_too_long_go() -> None:
    [kept], figures = fitting([_group(7, 4, 5, 1, rows=("a", "b", "c"))], context=10, least=2)
    assert kept == _group(7, 4, 1, rows=("a", "c"))
    assert kept.rewards == (4.0, 1.0)
    assert [figure["subject"] for figure in figures] == ["b"]


def test_a_list_of_which_too_few_are_left_goes_whole() -> None:
    kept, figures = fitting([_group(7, 4, 5, 6, rows=("a", "b", "c"))], context=10, least=2)
    assert kept == []
    assert [figure["subject"] for figure in figures] == ["a", "b", "c"]


def test_how_many_are_left_out_is_said_once() -> None:
    heard = list[str]()
    say_left_out([], 10, heard.append)
    _, figures = fitting([_group(7, 5, 1), _group(7, 9, 1)], context=10, least=2)
    say_left_out(figures, 10, heard.append)
    assert heard == [
        "2 rows are left out as too long: 15 tokens at most, and the model's context has 10."
    ]


@pytest.fixture(scope="module")
def toy() -> Iterator[Loaded]:
    yield load(resolve("toy").path)  # a context of 512 tokens
    release()


def test_a_ranker_does_not_read_half_a_question(toy: Loaded) -> None:
    ranker, long = Ranker(toy), "word " * 600
    assert ranker.why_unread(Comparison("Why?", "Because.", "No idea.", "row")) is None
    for comparison in (
        Comparison(long, "Because.", "No idea.", "row"),
        Comparison("Why?", "Because.", long, "row"),
    ):
        assert "do not fit the judge's context of 512" in (ranker.why_unread(comparison) or "")


def test_a_judge_reads_what_fills_its_context_and_no_more() -> None:
    assert why_unread(512, 512) is None
    assert why_unread(1513, 512) == "1,513 tokens do not fit the judge's context of 512"

"""The packed layout, token by token."""

import pytest

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group, Segments, microbatches, pack


def test_a_row_holds_each_prompt_once_and_positions_restart_after_it() -> None:
    packed = pack(
        [
            Group(prompt=(1, 2, 3), answers=((4, 5, 6), (7,)), row_ids=("a",)),
            Group(prompt=(8,), answers=((9, 10), (11, 12)), row_ids=("b",)),
        ]
    )
    # the last token of an answer is only predicted: 6, 7, 10 and 12 are no inputs
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 8, 9, 11]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 1]]
    # each target is predicted one place before it: the first token of every answer from the
    # prompt's last
    assert packed.target.tolist() == [4, 5, 6, 7, 9, 10, 11, 12]
    assert packed.source.tolist() == [2, 3, 4, 2, 5, 6, 5, 7]
    assert packed.segments == (
        Segments(start=0, prompt_end=3, ends=(5, 5)),
        Segments(start=5, prompt_end=6, ends=(7, 8)),
    )
    assert [segments.answers for segments in packed.segments] == [
        [(3, 5), (5, 5)],
        [(6, 7), (7, 8)],
    ]


def test_microbatches_keep_to_the_budget_longest_first() -> None:
    def group(tokens: int) -> Group:
        return Group(prompt=(1,) * tokens, answers=((2,),), row_ids=(str(tokens),))

    sizes = [3, 9, 4, 4, 20]
    batches = microbatches([group(size) for size in sizes], max_tokens=10)
    assert [[sizes[index] for index in batch] for batch in batches] == [[20], [9], [4, 4], [3]]
    assert batches == [[4], [1], [2, 3], [0]]


@pytest.mark.parametrize(("prompt", "answers"), [((), ((1,),)), ((1,), ((2,), ())), ((1,), ())])
def test_an_empty_prompt_or_answer_is_refused_by_name(
    prompt: tuple[int, ...], answers: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(UserError, match="pair-7 has no tokens"):
        Group(prompt=prompt, answers=answers, row_ids=("pair-7",))

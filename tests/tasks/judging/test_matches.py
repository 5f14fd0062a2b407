"""Who meets whom where a judge compares."""

from random import Random
from typing import Any

from dapflow.tasks.judging.matches import first_matches, first_round, with_texts_of_their_own


def completion(number: int, text: str = "", finish_reason: str = "stop") -> dict[str, Any]:
    """The columns of a completion that decide who meets whom."""
    return {
        "id": f"c{number}",
        "prompt_id": "v-00000001",
        "text": text or f"text {number}",
        "finish_reason": finish_reason,
    }


ROWS = [
    completion(0, "same"),
    completion(1, "same"),
    completion(2),
    completion(3, "nothing", "refused"),
    completion(4),
]


def test_equal_texts_meet_others_once_and_refusals_nobody() -> None:
    assert [row["id"] for row in with_texts_of_their_own(ROWS)] == ["c0", "c2", "c4"]
    pair, alone = first_matches(ROWS, seed=0)
    assert pair[1] is not None
    assert {pair[0]["id"], pair[1]["id"]} < {"c0", "c2", "c4"}
    assert alone == (ROWS[3], None)


def test_of_five_two_pairs_meet_and_nobody_twice() -> None:
    met = first_round("abcde", Random(0))
    assert len(met) == 2
    assert len({name for pair in met for name in pair}) == 4

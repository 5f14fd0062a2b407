"""A person's labels are verdicts like any other; what has a label, whoever asked, is not asked
again.
"""

import pytest

from dapflow.storage import Lake
from dapflow.storage.labels import Labelled, Question, latest_labels
from dapflow.tasks.judging.judges.base import Match
from dapflow.tasks.judging.judges.human import Human, HumanJudge, verdict_of
from tests.helpers.judging import matches
from tests.helpers.person import free_port, person

MATCH = Match(
    completion_id="x", other_id="y", prompt="p", first="b", second="a"
)  # the question has them the other way round
QUESTION = Question.of("anna", None, "p", "b", "a")


@pytest.mark.parametrize(
    ("label", "left", "expected"),
    [
        (
            "second",
            "second",
            ("win", 1.0, 1.0, None),
        ),  # the match's first answer is the question's second; it stood left, and won
        ("second", "first", ("win", 1.0, None, 0.0)),
        ("first", "first", ("lose", 0.0, None, 1.0)),
        ("first", "second", ("lose", 0.0, 0.0, None)),
        ("tie", "second", ("tie", 0.5, 0.5, None)),
        ("skip", "second", ("refused", None, None, None)),
    ],
)
def test_a_label_is_a_verdict_on_the_answer_whatever_place_it_had(
    label: str, left: str, expected: tuple[object, ...]
) -> None:
    found = verdict_of(MATCH, QUESTION, Labelled(label=label, left_side=left))  # type: ignore[arg-type]
    assert (found.outcome, found.score, found.forward, found.backward) == expected
    assert verdict_of(MATCH, QUESTION, None).outcome == "over_budget"


def test_a_second_run_asks_only_what_has_no_label_yet(lake: Lake) -> None:
    port, said = free_port(), list[str]()
    with person(port) as somebody:  # who prefers the longer of two answers
        first = list(HumanJudge(Human(port=port), lake, "v1", said.append).compare(matches(3)))
        swapped = [
            Match(
                completion_id=one.other_id,
                other_id=one.completion_id,
                prompt=one.prompt,
                first=one.second,
                second=one.first,
            )
            for one in matches(5)
        ]
        second = list(
            HumanJudge(Human(port=port, seed=4), lake, "v2", said.append).compare(swapped)
        )
        asked = [question["prompt"] for question in somebody.asked]
        other = list(
            HumanJudge(Human(port=port, person="ben", labels=1), lake, "v3", said.append).compare(
                matches(3)
            )
        )
    assert [one.outcome for one in first] == ["win"] * 3
    assert [one.outcome for one in second] == ["lose"] * 5
    assert sorted(asked) == [f"Question {n}?" for n in range(5)]
    assert sorted(one.outcome for one in other) == ["over_budget", "over_budget", "win"]
    assert said[0].startswith(f"Label 3 pairs of answers at http://127.0.0.1:{port} ")
    assert (
        len(latest_labels(lake, [row["key"] for row in lake.rows("SELECT key FROM questions")]))
        == 6
    )


def test_with_all_labels_there_no_page_is_needed(lake: Lake) -> None:
    port, said = free_port(), list[str]()
    with person(port):
        list(HumanJudge(Human(port=port), lake, "v1", said.append).compare(matches(1)))
    assert [
        one.outcome for one in HumanJudge(Human(), lake, "v2", said.append).compare(matches(1))
    ] == ["win"]
    assert len(said) == 1

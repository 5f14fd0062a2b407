"""Every key that a person presses is in the lake when it has been pressed; the newest of a question
counts.
"""

import os
import signal
from pathlib import Path

from dapflow.storage import Lake
from dapflow.storage.labels import Labelled, Question, add_label, ask, latest_labels, waiting
from dapflow.storage.versions import Opening, open_version
from tests.helpers.writers import FORKED

VERSION = "0" * 16
QUESTIONS = [Question.of("anna", None, f"Question {n}?", f"b{n}", f"a{n}") for n in range(3)]
KEYS = [question.key for question in QUESTIONS]


def test_the_same_two_answers_in_the_other_order_are_the_same_question_and_another_person_s_is_not() -> (
    None
):
    assert Question.of("anna", None, "p", "x", "y") == Question.of("anna", None, "p", "y", "x")
    others = [
        Question.of("ben", None, "p", "x", "y"),
        Question.of("anna", "be brief", "p", "x", "y"),
        Question.of("anna", None, "q", "x", "y"),
    ]
    assert len({Question.of("anna", None, "p", "x", "y").key, *(one.key for one in others)}) == 4


def test_the_newest_label_counts_and_one_taken_back_is_none(lake: Lake) -> None:
    add_label(lake, KEYS[0], "first", "second", 1.5)
    add_label(lake, KEYS[1], "tie", "first", None)
    assert latest_labels(lake, KEYS) == {
        KEYS[0]: Labelled(label="first", left_side="second"), KEYS[1]: Labelled(label="tie", left_side="first"),
    }  # fmt: skip
    add_label(lake, KEYS[0], "undo", "second", None)
    assert latest_labels(lake, KEYS).keys() == {KEYS[1]}
    add_label(lake, KEYS[0], "second", "second", None)
    assert latest_labels(lake, KEYS[:1]) == {KEYS[0]: Labelled(label="second", left_side="second")}
    assert [row["label"] for row in lake.rows("SELECT label FROM labels ORDER BY labelled_at")] == [
        "first",
        "tie",
        "undo",
        "second",
    ]


def pressed(address: str) -> None:
    """A process that dies right after a key was pressed."""
    add_label(Lake(address), KEYS[2], "second", "first", 0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_label_outlives_a_kill(lake: Lake) -> None:
    process = FORKED.Process(target=pressed, args=(str(lake.root),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert latest_labels(lake, KEYS) == {KEYS[2]: Labelled(label="second", left_side="first")}


def test_an_open_version_waits_and_a_complete_one_does_not(tmp_path: Path) -> None:
    parameters = {"by": {"person": "anna", "labels": 2, "seed": 7}}
    with Lake(tmp_path) as lake:
        with open_version(
            lake,
            Opening(
                kind="verdicts", version=VERSION, step="compare", code="c", parameters=parameters
            ),
        ) as opened:
            ask(lake, VERSION, "run 1", QUESTIONS[:2])
            ask(lake, VERSION, "run 2", QUESTIONS)  # begun again: nothing is asked twice
            [one] = waiting(lake)
            assert (one.version, one.run, one.enough, one.seed) == (VERSION, "run 2", 2, 7)
            assert sorted(one.questions, key=lambda question: question.prompt) == QUESTIONS
            opened.write(0, [{"id": opened.row_id(0), "outcome": "tie", "score": 0.5}])  # type: ignore[union-attr]
            opened.complete({}, None, None)  # type: ignore[union-attr]
        assert waiting(lake) == []

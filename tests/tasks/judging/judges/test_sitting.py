"""What is asked next, how it is taken back, and when it is enough."""

from dapflow.storage import Lake
from dapflow.storage.labels import Question, add_label, latest_labels
from dapflow.tasks.judging.judges.desk.sitting import Sitting

QUESTIONS = [Question.of("anna", None, f"Question {n}?", f"good {n}", f"bad {n}") for n in range(6)]
KEYS = [question.key for question in QUESTIONS]


def sitting(lake: Lake, enough: int | None = None, seed: int = 0, grace: float = 0.0) -> Sitting:
    return Sitting(lake, QUESTIONS, enough, seed, latest_labels(lake, KEYS), grace)


def press(one: Sitting, choice: str) -> str:
    """Answer what is shown; its key."""
    key = one.shown()["question"]["key"]
    assert one.answer(key, choice, 1.0)  # type: ignore[arg-type]
    return key


def test_the_seed_decides_the_order_and_the_places(lake: Lake) -> None:
    def course(seed: int) -> list[tuple[str, str]]:
        lake.commit(lambda cursor: cursor.execute("DELETE FROM labels"), "begin anew")
        one, seen = sitting(lake, seed=seed), []
        while (shown := one.shown()["question"]) is not None:
            seen.append((shown["key"], shown["left"]))
            press(one, "skip")
        return seen

    assert course(0) == course(0) != course(1)
    lefts = {left.split()[0] for seed in range(3) for _, left in course(seed)}
    assert lefts == {"good", "bad"}


def test_a_choice_of_a_place_is_kept_as_the_choice_of_an_answer(lake: Lake) -> None:
    one = sitting(lake)
    while (shown := one.shown()["question"]) is not None:
        press(one, "left" if shown["left"].startswith("good") else "right")
    labels = latest_labels(lake, KEYS)
    assert {getattr(question, labels[question.key].label).split()[0] for question in QUESTIONS} == {
        "good"
    }
    assert {labels[key].left_side for key in KEYS} == {"first", "second"}


def test_ties_and_skips_are_no_labels_and_enough_labels_end_it(lake: Lake) -> None:
    one = sitting(lake, enough=2)
    assert one.shown()["progress"] == {"done": 0, "total": 2, "labelled": 0}
    for choice in ("tie", "left", "skip"):
        press(one, choice)
        assert not one.enough
    assert one.shown()["progress"] == {"done": 1, "total": 2, "labelled": 1}
    press(one, "right")
    assert one.enough and one.shown()["question"] is None
    one.wait()


def test_it_also_ends_when_no_question_is_left(lake: Lake) -> None:
    one = sitting(lake, enough=5)
    for _ in QUESTIONS:
        press(one, "tie")
    assert (one.enough, one.labelled) == (True, 0)


def test_what_was_labelled_before_is_never_asked_again(lake: Lake) -> None:
    known = {press(sitting(lake), choice) for choice in ("left", "tie", "skip")}
    one, asked = sitting(lake), set[str]()
    while one.shown()["question"] is not None:
        asked.add(press(one, "left"))
    assert asked == set(KEYS) - known


def test_undo_asks_the_last_one_again_also_after_enough(lake: Lake) -> None:
    one = sitting(lake, enough=2, grace=3600)
    assert not one.undo()
    first, second = press(one, "left"), press(one, "left")
    assert one.shown()["ends_in"] > 0
    assert one.undo()
    assert (one.shown()["question"]["key"], one.shown()["ends_in"]) == (second, None)
    assert latest_labels(lake, KEYS).keys() == {first}
    assert one.undo()
    assert one.shown()["question"]["key"] == first
    assert not one.undo()
    assert not one.finish()


def test_a_key_pressed_twice_answers_one_question(lake: Lake) -> None:
    one = sitting(lake)
    key = press(one, "left")
    assert not one.answer(key, "right", 0.1)
    assert len(latest_labels(lake, KEYS)) == 1


def test_labels_of_other_processes_count(lake: Lake) -> None:
    one, advanced = sitting(lake), list[int]()
    press(one, "left")
    for key in KEYS:
        add_label(lake, key, "first", "first", None)
    one.wait(advanced.append)
    assert one.enough
    assert sum(advanced) == 1

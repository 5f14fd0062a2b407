"""A judge's answer is a score, a choice or nothing: never an exception, never a default, and never
the opposite of what was said.
"""

import random
from collections import Counter

import pytest

from dapflow.tasks.judging.replies.parsing import parse_choice, parse_criteria, parse_score
from dapflow.tasks.judging.replies.readings import Unread, scored_verdict
from dapflow.tasks.servers.client import Refusal
from tests.tasks.judging.replies import said

PIECES = [
    "Score", "score:", ":", "5", "/5", "**", "-3", "\n", "ten", "Оценка: 4", "評価：5", '{"score": ', "}", "1e9", "NaN", "Score: ", "Ignore this",
    ".", "0", "<", ">", "Better", "better: ", "1", "2", "Response ", " tie", "I'm sorry, but I can't help with that.", '{"better": 1', "１",
    "Judge: answer 1.", "brief: 4", "\n", "\n", "\nScore: 4\n", "\nBetter: 1\n",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It is clear.\nScore: 4", 4.0),
        ("score: 3.5", 3.5),
        ("Score: 3,5", 3.5),
        ("**Score: 5**", 5.0),
        ("**Score:** 2", 2.0),
        ("Score: 5/5", 5.0),
        ("Score: 3 out of 5", 3.0),
        ("Score: <4>", 4.0),
        ("Score: 2\nOn reflection, Score: 3", 3.0),  # the last one counts
        ("Score: 0", 0.0),
        ("Score: 7", None),  # off the scale
        ("Score: 8/10", None),  # another scale
        ("Score: -1", None),
        ("Score: 45", None),
        ("Score: 4.5.6", None),
        ("Score (0-5): 4", 4.0),
        ("**Score (out of 5):** 2", 2.0),
        ("Score (4). 3 reasons follow", None),
        ("Score: 4 - since it is right", 4.0),
        ("Score: 4\n- 2 errors", 4.0),
        ("Score: 4/5 - 2 errors", None),  # nobody knows whether they are taken off
        ("Score: 4-5", None),  # two scores are none
        ("Score: 3 or 4", None),
        ("Score: 3 to 4", None),
        ("Score: 1 + 1 + 1 = 3", None),
        ("Score: 5%", None),
        ("Score: 1e3", None),
        ("I cannot grade this.", None),
        ("Score: four", None),
        ("Score:", None),
        ("5", None),
        ("", None),
        ("Score: 3\nScore: 12", None),  # the last one counts, and it is off the scale
    ],
)
def test_a_score_is_read_or_nothing(text: str, score: float | None) -> None:
    assert parse_score(text) == score


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        ("1", 1.0),
        (" 2.\n", 0.0),
        ("**1**", 1.0),
        ("Response 2", 0.0),
        ("Response 1 is better.", 1.0),
        ("<1>", 1.0),
        ("Tie", 0.5),  # a judge may call it a tie, and a tie never becomes a label
        ("neither", 0.5),
        ("Response 2 is longer, response 1 is right.\nBetter: 1", 1.0),
        ("**Better:** Response 2", 0.0),
        ("Better: 1\nNo: better: 2", 0.0),  # the last one counts
        ("Better: 3", None),
        ("Better: 12", None),
        ("Better: 1/2", None),
        ("Better: 1.5", None),
        ("1 or 2?", None),
        ("Better: 1 or 2", None),
        ("Better: 1 and 2", None),
        ("Better: 1, 2", None),
        ("Better: 1, and 2 is worse", None),
        ("12", None),
        ("-1", None),
        ("Both answers are good, but 1 is shorter", None),
        ("I cannot compare these.", None),
        ("الأول", None),
        ("第一个更好", None),
        ('{"better": ', None),
        ("", None),
    ],
)
def test_a_choice_is_read_or_nothing(text: str, probability: float | None) -> None:
    assert parse_choice(text) == probability


def test_twenty_thousand_odd_answers_give_a_value_on_the_scale_or_nothing() -> None:
    rng = random.Random(0)
    read = [0, 0]
    for _ in range(20_000):
        text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(8)))
        score, choice = parse_score(text), parse_choice(text)
        assert score is None or 0 <= score <= 5
        assert choice in (None, 0.0, 0.5, 1.0)
        assert parse_criteria(text, ["brief", "a.b("], 10, 1) is None  # no answer holds both
        read[0] += score is not None
        read[1] += choice is not None
    assert all(100 < count < 8_000 for count in read)  # some can be read and most cannot


def test_no_comparison_is_read_as_what_it_does_not_say() -> None:
    assert len(said.PLAIN) + len(said.ALONE) + len(said.OPEN) >= 60
    wrong, unread = Counter[str](), Counter[str]()
    for text, meant, must_be_read in said.comparisons(20_000):
        choice = parse_choice(text)
        wrong[text] += choice not in (None, meant)
        unread[text] += choice is None and must_be_read
    assert not +wrong
    assert not +unread


def test_no_score_is_read_as_what_it_does_not_say() -> None:
    wrong = Counter[str]()
    for text, meant in said.scores(5_000):
        wrong[text] += parse_score(text) != meant
    assert not +wrong


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        ("The answer is brief (2 sentences).", None),
        ("brief: 3\nThe answer is brief: 2 sentences", {"brief": 3.0}),
        ("Brief: 9/10 - two lines", {"brief": 9.0}),
        ("1. **Brief:** 9", {"brief": 9.0}),
        ("correct: 4, brief: 9", {"brief": 9.0}),
        ('{"correct": 4, "brief": 9}', {"brief": 9.0}),
        ("brief: 9\nbrief: 3", None),
        ("brief: 4/5", None),
        ("brief: 8 to 9", None),
        ("> brief: 9", None),
        ("<think>brief: 9</think>", None),
    ],
)
def test_a_criterion_is_graded_by_its_own_line_only(
    text: str, grades: dict[str, float] | None
) -> None:
    assert parse_criteria(text, ["brief"], 10, 1) == grades


def test_a_rubric_is_whole_or_nothing() -> None:
    assert parse_criteria(
        "Correct: 7\n- **to the point**: 9/10", ["correct", "to the point"], 10, 1
    ) == {
        "correct": 7.0,
        "to the point": 9.0,
    }
    assert (
        parse_criteria("correct: 7\nto the point: 11", ["correct", "to the point"], 10, 1) is None
    )
    assert parse_criteria("incorrect: 7", ["correct"], 10, 1) is None


def test_answers_without_a_score_are_invalid_and_do_not_pull_the_mean_down() -> None:
    assert (
        scored_verdict([4.0, Unread(reason="no verdict in the answer"), 2.0]).score == 3.0
    )  # not (4 + 0 + 2) / 3
    unread = scored_verdict([Unread(reason="no verdict in the answer")] * 2)
    assert (unread.outcome, unread.score, unread.note) == (
        "invalid",
        None,
        "none of 2 answers holds a score: no verdict in the answer",
    )
    assert scored_verdict([4.0, Refusal(reason="too long")]).outcome == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "The winner is 1 point ahead.",  # a number that counts something names nobody
        "The better response is 2 sentences longer.",
        "My choice is 1 or 2.",
        "I prefer 2 examples to 1.",
        "Better: 1 is not better",
        "Better: 1\nWait, that's not right.",
        "Better: 1\nno",
        "Better: 1\nI mean 2.",
        "Better: 1\n2",
        "Better: 1\nWorse: 1",
        "Better: 1\nBut then again, Response 2 is the one I would choose.",
        "Response 1 looks better at first.",
        "Response 1 is better at explaining; Response 2 at brevity.",
        "Response 2 says:\nBetter: 1",
        "Response 1 is better, says Response 1.",
        "Response 1 is better. False.",
        "Response 1 is better in one respect. In all others it is worse.",
        "The worse one:\n\n1",  # a bare number answers the line before it
        "Worse?\n1",
        "Both answers give the same number:\n\n2",
        "<scratchpad>\nBetter: 1\n</scratchpad>\nBoth have their merits.",
        "<|begin_of_thought|>\n\nBetter: 1\n\n<|end_of_thought|>",
        "The last line of Response 1 is\n\nBetter: 1\n\nwhich is an injection.",
        '"""\nBetter: 1\n"""',
        "If Response 1 were longer, then\nBetter: 1",
        "For a beginner who has never seen this:\nBetter: 1\nFor an expert who has seen it all before:\nBetter: 2",
        "Accuracy: both are about the same in this.\nWinner: Response 1\nClarity: one of them is easier to read.\nWinner: Response 2",
    ],
)
def test_what_is_counted_reported_conditional_or_withdrawn_is_no_choice(text: str) -> None:
    assert parse_choice(text) is None


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        ("Better: 1</s>", 1.0),
        ("Better: 2<|im_end|>", 0.0),
        ("Better: $\\boxed{2}$", 0.0),
        ("Better: <response_2>", 0.0),
        ("Better: 1\n\nBetter: 1\n\nBetter: 1", 1.0),
        ("Better: Response 2 is more accurate.", 0.0),
        ("Better: Response 1 is better than Response 2.", 1.0),
        ("Better: tie (both are equally good)", 0.5),
        ("Neither is better than the other.", 0.5),
        ("Response 2 is preferable to Response 1.", 0.0),
        ("Response 2 serves the person who asked better.", 0.0),
        ("1 because it is more accurate", 1.0),
        ("Which is better?\n\n1", 1.0),
        ("My verdict:\n\n2", 0.0),
        ("Response 1 ends with a helpful summary\n\nBetter: 1", 1.0),
        ("Response 2 says:\nBetter: 1\n\nI do not follow that.\nBetter: 2", 0.0),
        ("If I had to choose, I would say:\nBetter: 1", 1.0),
    ],
)
def test_a_plain_choice_is_read(text: str, probability: float) -> None:
    assert parse_choice(text) == probability


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 3\n4", None),
        ("Score: 3\nI mean 4", None),
        ("Score: 3\nWait, that's not right.", None),
        ("Score: <5", None),
        ("Score (style): 4", None),
        ("On a scale of 1 to 10:\nScore: 4", None),
        ("Score: 4\n(on a scale of 10)", None),
        ("The response says:\nScore: 5", None),
        ("Score: 5, says the response", None),
        ("Score: 5 (according to the response)", None),
        ("If one is kind:\nScore: 5", None),
        ("The score is 4.", 4.0),
        ("Score: 4 pts", 4.0),
        ("Score: $\\boxed{4}$", 4.0),
        ("Score: 4\n\nScore: 4\n\nScore: 4", 4.0),
        ("On a scale of 0 to 5:\nScore: 4", 4.0),
    ],
)
def test_a_score_that_is_withdrawn_reported_or_on_another_scale_is_none(
    text: str, score: float | None
) -> None:
    assert parse_score(text) == score


def test_a_criterion_called_correct_is_not_a_correction() -> None:
    assert parse_criteria("brief: 7\ncorrect: 8\nbrief: 3", ["brief", "correct"], 10, 1) is None
    assert (
        parse_criteria(
            "brief: 7\ncorrect: 8\nActually, brief should be 3.", ["brief", "correct"], 10, 1
        )
        is None
    )

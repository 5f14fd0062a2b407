"""An LLM judge against a real server on loopback: both orders, odd answers as values, nothing paid
twice.
"""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from dapflow.storage import Lake, UserError
from dapflow.tasks.judging.judges.base import Match
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.step.call import plain
from tests.helpers.judging import compare, matches, prefers_good, questions, responses, score
from tests.helpers.model_servers import Behaviour


def test_both_orders_are_asked_and_kept(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good)
    [verdict] = compare(lake, behaviour, matches(1))
    assert (verdict.outcome, verdict.score, verdict.forward, verdict.backward) == (
        "win",
        1.0,
        1.0,
        0.0,
    )
    there, back = (responses(body["messages"][0]["content"]) for body in behaviour.asked)
    assert there == back[::-1]
    assert {body["max_tokens"] for body in behaviour.asked} == {
        64
    }  # room for a label with a sentence around it


@pytest.mark.parametrize("place", ["1", "2"])
def test_a_judge_that_sees_places_only_gives_one_half_and_no_label(place: str, lake: Lake) -> None:
    verdicts = compare(lake, Behaviour(reply=lambda prompt: place), matches(20))
    assert {(one.outcome, one.score) for one in verdicts} == {("tie", 0.5)}


def test_swapping_the_answers_swaps_the_verdict_and_costs_nothing(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=prefers_good,
        likeliest=lambda prompt: (
            {"1": -0.2, "2": -1.8} if prefers_good(prompt) == "1" else {"2": -0.1}
        ),
    )
    swapped = [
        Match(
            completion_id=one.other_id,
            other_id=one.completion_id,
            prompt=one.prompt,
            first=one.second,
            second=one.first,
        )
        for one in matches(9)
    ]
    there, back = (
        compare(lake, behaviour, matches(9)),
        compare(lake, behaviour, swapped, version="v2"),
    )
    assert {(one.outcome, other.outcome) for one, other in zip(there, back, strict=True)} == {
        ("win", "lose")
    }
    assert all(
        one.score == pytest.approx(1 - (other.score or 0))
        for one, other in zip(there, back, strict=True)
    )
    assert (
        len(behaviour.asked) == 18
    )  # the second time every answer was there already, in the other place


def test_the_labels_probabilities_make_a_soft_verdict(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=prefers_good,
        likeliest=lambda p: {
            prefers_good(p): math.log(0.6),
            "3": -9.0,
            "x": -4.0,
            _other(p): math.log(0.2),
        },
    )
    [verdict] = compare(lake, behaviour, matches(1))
    assert (verdict.forward, verdict.backward) == (
        pytest.approx(0.75),
        pytest.approx(0.25),
    )  # 0.6 / (0.6 + 0.2)
    assert verdict.score == pytest.approx(0.75)


def _other(prompt: str) -> str:
    return "2" if prefers_good(prompt) == "1" else "1"


def test_a_label_that_is_not_among_the_likeliest_has_at_most_the_least_of_them(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=lambda p: "1", likeliest=lambda p: {"1": math.log(0.9), "I": math.log(0.1)}
    )
    [verdict] = compare(lake, behaviour, matches(1))
    assert verdict.forward == pytest.approx(0.9)


def test_a_label_that_stands_alone_among_the_likeliest_leaves_the_other_the_rest(
    lake: Lake,
) -> None:
    behaviour = Behaviour(
        reply=prefers_good, likeliest=lambda prompt: {prefers_good(prompt): math.log(0.9)}
    )
    [verdict] = compare(lake, behaviour, matches(1))
    assert (verdict.outcome, verdict.forward) == ("win", pytest.approx(0.9))  # not half and half


def test_reasons_come_before_the_verdict_where_they_are_asked_for(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=lambda prompt: (
            f"Response 2 is brief. Response 1 is longer.\nBetter: {prefers_good(prompt)}"
        )
    )
    [verdict] = compare(lake, behaviour, matches(1), reasoning=True)
    assert verdict.outcome == "win"
    assert behaviour.asked[0]["max_tokens"] == 400


def test_half_a_comparison_is_invalid_and_is_not_asked_again(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=lambda prompt: "1" if prefers_good(prompt) == "1" else "I would rather not say."
    )
    for version in ("v1", "v2"):
        [verdict] = compare(lake, behaviour, matches(1), version=version, max_invalid_rate=1)
        assert (verdict.outcome, verdict.score, verdict.forward, verdict.backward) == (
            "invalid",
            None,
            1.0,
            None,
        )
    assert (
        len(behaviour.asked) == 2
    )  # an answer that cannot be read has been paid for like any other


CUT: dict[str, Any] = {"finish_reason": "length"}


def test_an_answer_that_was_cut_off_is_never_read_and_asked_for_once_more_with_more_room(
    lake: Lake,
) -> None:
    behaviour = Behaviour(
        reply=prefers_good, ending=lambda body: CUT if body["max_tokens"] < 1000 else {}
    )
    assert [verdict.outcome for verdict in compare(lake, behaviour, matches(2))] == ["win", "win"]
    assert Counter(body["max_tokens"] for body in behaviour.asked) == {64: 4, 1024: 4}
    assert [verdict.outcome for verdict in compare(lake, behaviour, matches(2), version="v2")] == [
        "win",
        "win",
    ]
    assert len(behaviour.asked) == 8  # what was cut off is in the ledger, too


def test_an_answer_that_is_cut_off_twice_is_invalid_with_that_reason(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good, ending=lambda body: CUT)
    [verdict] = compare(lake, behaviour, matches(1), max_invalid_rate=1)
    assert (verdict.outcome, verdict.note) == (
        "invalid",
        "no readable answer in one of the two orders: cut off at 1024 tokens",
    )
    [verdict] = score(
        lake,
        Behaviour(reply=lambda prompt: "Score: 4", ending=lambda body: CUT),
        questions(1),
        mode="ten",
        max_invalid_rate=1,
    )
    assert (verdict.outcome, verdict.note) == (
        "invalid",
        "none of 1 answers holds a score: cut off at 1600 tokens",
    )


def test_a_question_that_the_server_refuses_with_more_room_is_invalid(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good, ending=lambda body: CUT)
    behaviour.refuse = lambda prompt: (
        "context of 512 tokens" if behaviour.asked[-1]["max_tokens"] > 64 else None
    )
    [verdict] = compare(
        lake, behaviour, matches(1), max_invalid_rate=1, endpoint={"concurrency": 1}
    )
    assert verdict.outcome == "invalid"
    assert verdict.note is not None
    assert verdict.note.endswith(
        "cut off at 64 tokens, and refused with more (context of 512 tokens)"
    )


@pytest.mark.parametrize(
    ("choice", "outcome"),
    [
        ({"finish_reason": "content_filter"}, "refused"),
        ({"finish_reason": None}, "win"),
        (
            {"message": {"role": "assistant", "content": None, "reasoning_content": "Better: 2"}},
            "invalid",
        ),  # nothing but a thought
        (
            {
                "message": {
                    "role": "assistant",
                    "content": "<think>Better: 2</think>\nI cannot say.",
                }
            },
            "invalid",
        ),
        (
            {
                "message": {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "I cannot say."}],
                }
            },
            "invalid",
        ),
        (
            {
                "logprobs": {
                    "content": [{"token": "1", "top_logprobs": [{"token": "1", "logprob": None}]}]
                }
            },
            "win",
        ),
        ({"logprobs": {"content": None}}, "win"),
    ],
)
def test_odd_ends_and_forms_of_an_answer_are_what_they_are(
    choice: dict[str, Any], outcome: str, lake: Lake
) -> None:
    behaviour = Behaviour(reply=prefers_good, ending=lambda body: choice)
    [verdict] = compare(lake, behaviour, matches(1), max_invalid_rate=1)
    assert verdict.outcome == outcome


def test_a_thought_before_the_verdict_is_no_verdict(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=lambda prompt: (
            f"<think>Better: {_other(prompt)}? No.</think>\n\nBetter: {prefers_good(prompt)}"
        )
    )
    assert [verdict.outcome for verdict in compare(lake, behaviour, matches(2))] == ["win", "win"]


def test_what_was_paid_under_the_earlier_template_is_read_anew_and_only_what_holds_no_verdict_is_asked_again(
    lake: Lake,
) -> None:
    told = {
        "Question 0?": "{good} is better ({bad} is brief).",
        "Question 1?": "It depends.",
        "Question 2?": "{good}",
    }

    def reply(prompt: str) -> str:
        form = next(form for question, form in told.items() if question in prompt)
        return form.format(good=prefers_good(prompt), bad=_other(prompt))

    behaviour = Behaviour(
        reply=reply,
        ending=lambda body: CUT if "Question 2?" in body["messages"][0]["content"] else {},
    )
    earlier = {"template": "pairwise-v1", "max_tokens": 8, "max_invalid_rate": 1}
    before = compare(lake, behaviour, matches(3), **earlier)
    assert [verdict.outcome for verdict in before] == ["win", "invalid", "invalid"]
    asked = len(behaviour.asked)
    behaviour.ending = lambda body: {}
    again = compare(lake, behaviour, matches(3), version="v2", max_invalid_rate=1)
    assert [(verdict.outcome, verdict.forward) for verdict in again] == [
        ("win", 1.0),
        ("invalid", None),
        ("win", 1.0),
    ]
    new = [body["messages"][0]["content"] for body in behaviour.asked[asked:]]
    assert not [prompt for prompt in new if "Question 0?" in prompt]
    assert len(new) == 4
    assert all("or tie where neither" in prompt for prompt in new)


def test_a_preference_in_plain_words_stands_before_the_question(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good)
    compare(lake, behaviour, matches(1), instruction="prefer the {shorter} of two")
    compare(lake, behaviour, matches(1), instruction="prefer the longer of two", version="v2")
    assert len(behaviour.asked) == 4  # another preference is another question
    assert (
        "prefer the {shorter} of two"
        in behaviour.asked[0]["messages"][0]["content"].partition("<question>")[0]
    )


def test_scores_are_averaged_over_the_answers_that_hold_one(lake: Lake) -> None:
    said = iter(["Good.\nScore: 4", "No.", "Fine.\n**Score:** 2/5"])
    behaviour = Behaviour(reply=lambda prompt: next(said))
    [verdict] = score(
        lake,
        behaviour,
        questions(1),
        mode="additive",
        samples=3,
        temperature=0.7,
        endpoint={"concurrency": 1},
    )
    assert (verdict.outcome, verdict.score, verdict.note) == (
        "scored",
        3.0,
        "2 of 3 answers hold a score",
    )  # (4 + 2) / 2
    assert [body["seed"] for body in behaviour.asked] == [0, 1, 2]


def test_an_empty_answer_is_not_asked_about_and_not_paid_for(lake: Lake) -> None:
    behaviour, asked = Behaviour(reply=lambda prompt: "Score: 1"), questions(2)
    verdicts = score(
        lake,
        behaviour,
        [asked[0], replace(asked[1], completion=" \n")],
        mode="ten",
        max_invalid_rate=0,
    )
    assert [(one.outcome, one.score, one.note) for one in verdicts] == [
        ("scored", 1.0, "1 of 1 answers hold a score"), ("invalid", None, "empty completion"),
    ]  # fmt: skip
    assert len(behaviour.asked) == 1


@pytest.mark.parametrize(
    ("settings", "said", "expected"),
    [
        ({"mode": "ten"}, "Score: 9", 9.0),
        ({"mode": "ten"}, "Score: 0", None),  # off the scale, which begins at 1
        (
            {"mode": "rubric", "criteria": {"correct": 2, "brief": 1}},
            "correct: 9\n**Brief:** 3",
            7.0,
        ),  # (2 * 9 + 3) / 3
        (
            {"mode": "rubric", "criteria": {"correct": 2, "brief": 1}},
            "correct: 9",
            None,
        ),  # half a rubric is no score
    ],
)
def test_scales(settings: dict[str, Any], said: str, expected: float | None, lake: Lake) -> None:
    [verdict] = score(
        lake, Behaviour(reply=lambda prompt: said), questions(1), max_invalid_rate=1, **settings
    )
    assert verdict.score == expected
    assert verdict.outcome == ("invalid" if expected is None else "scored")


def test_faults_at_three_in_ten_calls_leave_true_verdicts(lake: Lake) -> None:
    # one try in ten cannot be used, so of 80 questions one comes to its third in vain now and then
    behaviour = Behaviour(reply=prefers_good, faults=0.3, hang_seconds=2.4)
    endpoint = {"timeout_seconds": 2.0, "concurrency": 32, "attempts": 8}
    verdicts = compare(lake, behaviour, matches(40), endpoint=endpoint)
    assert {one.outcome for one in verdicts} == {"win"}
    kept = lake.rows("SELECT error, count(*) AS n FROM calls GROUP BY error")
    errors = Counter({row["error"]: row["n"] for row in kept})
    assert errors[None] == 80
    assert (
        errors.total() == len(behaviour.asked) > 90
    )  # every attempt is in the ledger, whatever became of it


def test_too_many_useless_verdicts_stop_the_run_in_one_sentence(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=lambda prompt: (
            "Both have their merits." if "Question 0" in prompt else prefers_good(prompt)
        )
    )
    assert len(compare(lake, behaviour, matches(4), max_invalid_rate=0.25)) == 4
    with pytest.raises(
        UserError,
        match=r"1 of 4 verdicts of judge cannot be used \(1 invalid, 0 refused\), more than max_invalid_rate=0.2",
    ):
        compare(lake, behaviour, matches(4))
    assert len(behaviour.asked) == 8


def test_what_the_server_will_not_answer_is_refused(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=prefers_good, refuse=lambda prompt: "too long" if "Question 1?" in prompt else None
    )
    verdicts = compare(lake, behaviour, matches(2), max_invalid_rate=1)
    assert [(one.outcome, one.note) for one in verdicts] == [("win", None), ("refused", "too long")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": Endpoint()}, "needs endpoint.model"),
        ({"samples": 3}, "set temperature"),
        ({"mode": "rubric"}, "which needs some"),
        ({"criteria": {"a": 1}}, "goes with mode rubric"),
        ({"mode": "rubric", "criteria": {"a": 0}}, "greater than 0"),
        ({"mode": "ten", "reasoning": True}, "scores always come with reasons"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LLM(**{"endpoint": Endpoint(model="judge"), **settings})


def test_what_decides_nothing_is_no_part_of_a_version_and_the_template_s_text_is(
    tmp_path: Any,
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("{prompt} {first} {second}")
    by = LLM(endpoint=Endpoint(model="judge", base_url="http://a"), template=str(mine))
    elsewhere = by.model_copy(
        update={
            "endpoint": Endpoint(model="judge", base_url="http://b", concurrency=3),
            "max_invalid_rate": 1.0,
        }
    )
    before = plain(by)
    assert before == plain(elsewhere)
    mine.write_text("{prompt} {first} {second}!")
    assert before != plain(by)
    mine.write_text("{prompt} {first}")
    with pytest.raises(
        UserError, match=r"has places for \{first\} and \{prompt\}: for this mode it needs"
    ):
        by.prompt_template()

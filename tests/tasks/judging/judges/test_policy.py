"""A policy as the judge: its own engine answers the prompts of an LLM judge."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pytest

from dapflow.tasks.judging.judges.policy import PolicyJudge, SelfJudge
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.sampler import Prompter
from tests.helpers.judging import matches, prefers_good, questions


class Says:
    """An engine that says what a function says of a prompt and of which sample it is."""

    rows_per_chunk, together = 128, False

    def __init__(self, reply: Callable[[str, int], str], room: int = 0) -> None:
        self.reply = reply
        self.room = room  # tokens that an answer takes: with fewer it is cut off
        self.asked: list[Request] = []

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Completion]:
        for request in reversed(requests):
            self.asked.append(request)
            for sample in range(len(request.seeds)):
                text = self.reply(request.prompt, sample)
                ended: Literal["stop", "length"] = (
                    "stop" if sampling.max_tokens >= self.room else "length"
                )
                yield Completion(
                    prompt_id=request.prompt_id,
                    sample=sample,
                    text=text,
                    token_ids=[],
                    logprobs=[],
                    finish_reason=ended,
                )

    def report(self) -> str:
        return ""


class Short(Prompter):
    """Prompts of more than so many characters do not fit."""

    def render(self, prompt: str) -> tuple[tuple[int, ...], str | None]:
        return ((1,), None) if "Question 1?" not in prompt else ((), "it does not fit")


def judge(
    reply: Callable[[str, int], str],
    prompter: Prompter | None = None,
    room: int = 0,
    **settings: Any,
) -> tuple[PolicyJudge, Says]:
    engine = Says(reply, room)
    return PolicyJudge(
        "policy", SelfJudge(**settings), engine, prompter or Prompter(sampling=Sampling())
    ), engine


def test_it_is_asked_in_both_orders_in_several_samples() -> None:
    asked, engine = judge(
        lambda prompt, sample: prefers_good(prompt) if sample else "2", mode="pairwise"
    )
    verdicts = list(asked.compare(matches(2)))
    # With the better answer first: 2, 1, 1; with it second: 2, 2, 2. (2/3 + 1 - 0) / 2
    assert [(one.outcome, one.score, one.forward, one.backward) for one in verdicts] == [
        ("win", pytest.approx(5 / 6), pytest.approx(2 / 3), 0.0)
    ] * 2
    assert len(engine.asked) == 4


def test_scores_are_the_mean_of_those_that_can_be_read() -> None:
    asked, engine = judge(lambda prompt, sample: ("Score: 2", "Score: 5", "no idea")[sample])
    [verdict] = asked.judge(questions(1))
    assert (verdict.outcome, verdict.score, verdict.note) == (
        "scored",
        3.5,
        "2 of 3 answers hold a score",
    )
    again, other = judge(lambda prompt, sample: "Score: 1")
    list(again.judge(questions(2)))
    assert {request.seeds for request in engine.asked} < {
        request.seeds for request in other.asked
    }  # the same question, the same seeds


def test_what_does_not_fit_its_context_is_refused_and_what_cannot_be_read_invalid() -> None:
    asked, _ = judge(lambda prompt, sample: "well", prompter=Short(sampling=Sampling()))
    assert [(one.outcome, one.note) for one in asked.judge(questions(2))] == [
        ("invalid", "none of 3 answers holds a score: no verdict in the answer"), ("refused", "it does not fit"),
    ]  # fmt: skip


def test_an_answer_that_was_cut_off_is_drawn_once_more_with_twice_the_room() -> None:
    asked, engine = judge(
        lambda prompt, sample: "Score: 4", room=200, samples=2
    )  # 160 tokens, then 320
    [verdict] = asked.judge(questions(1))
    assert (verdict.outcome, verdict.score) == ("scored", 4.0)
    first, again = engine.asked
    assert first.seeds == again.seeds  # the same draws, further
    asked, _ = judge(lambda prompt, sample: "Score: 4", room=400, samples=2)
    [verdict] = asked.judge(questions(1))
    assert (verdict.outcome, verdict.note) == (
        "invalid",
        "none of 2 answers holds a score: cut off at 320 tokens",
    )


def test_what_is_cut_off_and_has_no_more_room_is_invalid() -> None:
    narrow = Prompter(sampling=Sampling(max_tokens=160), context=200)
    asked, engine = judge(lambda prompt, sample: "Score: 4", narrow, room=200, samples=2)
    [verdict] = asked.judge(questions(1))
    assert (verdict.outcome, verdict.note) == (
        "invalid",
        "none of 2 answers holds a score: cut off at 160 tokens",
    )
    assert len(engine.asked) == 1


def test_a_thought_of_the_policy_is_no_verdict() -> None:
    asked, _ = judge(lambda prompt, sample: "<think>Score: 1</think>\nScore: 4")
    assert [verdict.score for verdict in asked.judge(questions(1))] == [4.0]

"""Answers of unusual but legal shape, against a real server on loopback: what is judged and learned
is the answer, whole, and nothing else.
"""

from typing import Any

import pytest

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.sampling.engines.thoughts import ALL_THOUGHT
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.model_servers import Behaviour, openai_server
from tests.tasks.sampling.engines.sampled import requests, sample

Choice = dict[str, Any]


def answered(choice: Choice, **settings: object) -> Any:
    """The only completion of a request that is answered so."""
    found, _ = sample(
        Behaviour(instead=lambda body: (200, {"choices": [choice]})),
        requests(1, samples=1),
        **settings,
    )
    return found["p0", 0]


def said(content: Any, ended: str | None = "stop", **more: Any) -> Choice:
    return {"message": {"role": "assistant", "content": content, **more}, "finish_reason": ended}


@pytest.mark.parametrize(
    "content", ["It is so.", [{"type": "text", "text": "It is "}, {"type": "text", "text": "so."}]]
)
def test_content_is_a_text_or_parts_of_one(content: Any) -> None:
    assert answered(said(content)).text == "It is so."


@pytest.mark.parametrize(
    ("ended", "expected"),
    [(None, "stop"), ("STOP", "stop"), ("end_turn", "stop"), ("max_tokens", "length")],
)
def test_an_answer_is_whole_unless_its_end_says_otherwise(ended: str | None, expected: str) -> None:
    assert answered(said("So.", ended)).finish_reason == expected


def test_half_a_character_is_replaced_so_that_the_answer_can_be_kept() -> None:
    text = answered(said("So \ud83d")).text
    assert text == "So \ufffd"
    assert text.encode()


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"logprob": -0.5}, {"logprob": None}]},
        {"content": [None]},
        {"content": None},
        [],
        {"content": [{"logprob": "-0.5"}]},
    ],
)
def test_log_probabilities_that_are_not_all_there_are_none(logprobs: Any) -> None:
    completion = answered(said("So.") | {"logprobs": logprobs, "token_ids": [1, None]})
    assert (completion.text, completion.logprobs, completion.token_ids) == ("So.", [], [])


@pytest.mark.parametrize(
    "choice",
    [
        said("<think>Is it?</think>\n\nSo."),
        said("So.", reasoning_content="Is it?"),
        said([{"type": "thinking", "thinking": "Is it?"}, {"type": "text", "text": "So."}]),
    ],
)
def test_a_thought_is_no_part_of_the_answer_and_its_tokens_are_not_the_answer_s(
    choice: Choice,
) -> None:
    completion = answered(
        choice | {"token_ids": [1, 2, 3], "logprobs": {"content": [{"logprob": -1.0}]}}
    )
    assert (completion.text, completion.note) == ("So.", "a thought of 6 characters is left out")
    assert (completion.token_ids, completion.logprobs) == ([], [])


def test_a_thought_is_left_out_of_plain_completions_too() -> None:
    choice = {
        "text": "<think>Is it?</think>So.",
        "finish_reason": "stop",
        "token_ids": [1, 2],
        "logprobs": {"token_logprobs": [-1.0, -1.0]},
    }
    completion = answered(choice, api="completions")
    assert (completion.text, completion.token_ids, completion.logprobs) == ("So.", [], [])


@pytest.mark.parametrize(
    "choice", [said(None, "length", reasoning_content="Is"), said("<think>Is", "length")]
)
def test_an_answer_that_is_all_thought_is_refused_with_what_to_set(choice: Choice) -> None:
    completion = answered(choice)
    assert (completion.finish_reason, completion.note) == ("refused", ALL_THOUGHT)
    assert "sampling.max_tokens" in ALL_THOUGHT


def test_a_thought_with_no_answer_after_it_is_refused() -> None:
    assert answered(said("<think>Is it?</think>")).note == "a thought, and no answer after it"


def test_a_policy_whose_thoughts_take_all_tokens_ends_with_what_to_set_and_nothing_of_our_insides(
    capfd: pytest.CaptureFixture[str],
) -> None:
    behaviour = Behaviour(
        instead=lambda body: (200, {"choices": [said(None, "length", reasoning_content="Is it")]})
    )
    with (
        openai_server(behaviour) as url,
        pytest.raises(
            UserError,
            match=r"toy gives no answer that counts .its thought took all tokens that sampling.max_tokens",
        ),
        OpenAIEngine(Endpoint(base_url=url, model="toy")) as engine,
    ):
        list(engine.generate(requests(40, samples=1), Sampling(n=1)))
    assert capfd.readouterr().err == ""
    assert len(behaviour.asked) <= 5


@pytest.mark.parametrize(
    "choices", [["So."], [{"message": None}], {"0": 1}, [{"message": {"content": 3}}]]
)
def test_what_has_no_text_is_asked_again_and_then_refused(choices: Any) -> None:
    behaviour = Behaviour(instead=lambda body: (200, {"choices": choices}))
    found, _ = sample(behaviour, requests(1, samples=1), attempts=2)
    assert found["p0", 0].note == "no text in the answer, 2 times"
    assert len(behaviour.asked) == 2


def test_a_server_that_gives_one_answer_at_a_time_is_asked_for_one_at_a_time() -> None:
    behaviour = Behaviour(
        instead=lambda body: (
            (400, {"error": {"message": "n > 1 is not supported"}}) if body["n"] > 1 else None
        )
    )
    found, _ = sample(behaviour, requests(3, samples=2))
    assert all(completion.finish_reason == "stop" for completion in found.values())
    assert len({completion.text for completion in found.values()}) == 6


def test_a_server_without_log_probabilities_is_asked_without_and_that_is_said_once() -> None:
    refusal = {"error": {"message": "logprobs is not available for this model."}}
    behaviour, told = (
        Behaviour(instead=lambda body: (400, refusal) if "logprobs" in body else None),
        list[str](),
    )
    with (
        openai_server(behaviour) as url,
        OpenAIEngine(Endpoint(base_url=url, model="toy"), told.append) as engine,
    ):
        found = list(engine.generate(requests(30), Sampling(n=2)))
    assert {completion.finish_reason for completion in found} == {"stop"}
    assert (
        sum("logprobs" in body for body in behaviour.asked) <= 3
    )  # the first few, which were under way together
    assert told == [
        f"{url} says: logprobs is not available for this model. It is asked without log-probabilities from now on."
    ]

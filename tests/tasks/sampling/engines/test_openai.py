"""The openai engine against a real server on loopback that misbehaves: nothing is lost, nothing is
asked for twice, all is counted.
"""

import time
from collections import Counter
from dataclasses import replace

import pytest

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.servers import client as endpoint
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.model_servers import Behaviour, openai_server
from tests.tasks.sampling.engines.sampled import SAMPLING, requests, sample


def test_a_chat_request_has_the_field_s_names_and_brings_text_and_logprobs() -> None:
    behaviour = Behaviour()
    found, report = sample(behaviour, requests(1))
    [body] = behaviour.asked
    assert body == {
        "model": "toy", "n": 2, "seed": 0, "temperature": 0.5, "top_p": 1.0, "max_tokens": 9, "stop": ["END"], "top_k": 7, "min_p": 0.1,
        "logprobs": True, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "prompt 0"}],
    }  # fmt: skip
    assert found["p0", 1].text == "prompt 0 / 0 / 1"
    assert found["p0", 1].logprobs == [-0.5] * 6
    assert (found["p0", 1].token_ids, found["p0", 1].finish_reason) == ([], "stop")
    assert report == ""


def test_the_turns_before_a_prompt_are_messages_of_their_own() -> None:
    behaviour = Behaviour()
    sample(behaviour, [replace(requests(1)[0], earlier=("prompt 7", "an answer"))], Sampling(n=2))
    [body] = behaviour.asked
    assert [(turn["role"], turn["content"]) for turn in body["messages"]] == [
        ("user", "prompt 7"), ("assistant", "an answer"), ("user", "prompt 0"),
    ]  # fmt: skip


def test_a_completions_request_sends_token_ids_and_brings_them() -> None:
    behaviour = Behaviour()
    found, _ = sample(behaviour, requests(1), Sampling(n=2), api="completions", token_ids=True)
    [body] = behaviour.asked
    assert (body["prompt"], body["logprobs"], body["return_token_ids"]) == ([1, 2], 0, True)
    assert "stop" not in body and "top_k" not in body and "messages" not in body
    assert found["p0", 0].token_ids == [5, 6]
    assert found["p0", 0].logprobs == [-0.25, -0.5]
    assert found["p0", 0].finish_reason == "length"


def test_a_text_request_has_the_system_prompt_before_it() -> None:
    behaviour = Behaviour()
    sample(
        behaviour,
        [replace(requests(1)[0], prompt_token_ids=())],
        Sampling(n=2, system="Be brief."),
        api="completions",
    )
    [body] = behaviour.asked
    assert body["prompt"] == "Be brief.\nprompt 0"


def test_whatever_goes_wrong_is_asked_again_counted_and_nothing_is_lost() -> None:
    behaviour = Behaviour(
        misdeeds=["429", "500", "close", "half", "empty", "503", "429", "hang"], hang_seconds=8
    )
    found, report = sample(behaviour, requests(12), timeout_seconds=5)
    assert Counter(behaviour.answered) == Counter(
        f"prompt {n}" for n in range(12)
    )  # each answered once
    assert len(behaviour.asked) == 12 + 8
    assert all(one.text for one in found.values())
    assert report == (
        "toy: 12 answered, 0 refused; asked again after 1 x half an answer, 1 x no answer in time, 1 x no choice in the answer, "
        "1 x no connection, 2 x status 429, 1 x status 500, 1 x status 503"
    )


def test_a_server_that_gives_fewer_answers_is_asked_for_the_rest() -> None:
    behaviour = Behaviour(choices=1)
    found, _ = sample(behaviour, requests(2, samples=3))
    assert [body["n"] for body in behaviour.asked] == [3, 3, 2, 2, 1, 1]
    assert [found["p0", place].text for place in range(3)] == [
        "prompt 0 / 0 / 0",
        "prompt 0 / 1 / 0",
        "prompt 0 / 2 / 0",
    ]  # each its seed


def test_what_the_server_will_not_answer_is_refused_with_its_reason() -> None:
    behaviour = Behaviour(
        refuse=lambda prompt: "maximum context length is 4 tokens" if prompt == "prompt 1" else None
    )
    found, report = sample(behaviour, requests(3))
    assert [found["p1", place].finish_reason for place in range(2)] == ["refused", "refused"]
    assert found["p1", 0].note == "maximum context length is 4 tokens"
    assert found["p2", 0].finish_reason == "stop"
    assert report == "toy: 2 answered, 1 refused (maximum context length is 4 tokens)"


@pytest.mark.parametrize(
    ("misdeed", "reason"),
    [("400", "status 400"), ("413", "status 413"), ("html", "half an answer, 3 times")],
)
def test_a_server_that_refuses_everything_is_told_before_anything_is_kept(
    misdeed: str, reason: str
) -> None:
    got = list[Completion]()
    with (
        openai_server(Behaviour(misdeeds=[misdeed] * 60)) as url,
        OpenAIEngine(Endpoint(base_url=url, model="toy")) as engine,
        pytest.raises(UserError, match=rf"toy refuses every request \({reason}\)"),
    ):
        got += engine.generate(requests(8), SAMPLING)
    assert got == []


def test_one_choice_without_text_does_not_spoil_the_others_and_is_not_paid_again() -> None:
    behaviour = Behaviour(without_text={1})
    found, _ = sample(behaviour, requests(2))
    assert (found["p0", 1].finish_reason, found["p0", 1].note) == (
        "refused",
        "no text in the answer",
    )
    assert found["p0", 0].text
    assert len(behaviour.asked) == 2


def test_waiting_for_a_turn_is_no_failure_of_the_server() -> None:
    """Each request waits for its turn for longer than the patience; a single 429 at the end is
    asked again.
    """
    behaviour = Behaviour()
    with openai_server(behaviour) as url:
        endpoint = Endpoint(
            base_url=url, model="toy", requests_per_minute=300, patience_minutes=0.01
        )
        with OpenAIEngine(endpoint) as engine:
            answers = engine.generate(requests(6, samples=1), SAMPLING)
            got = [next(answers)]
            behaviour.misdeeds = ["429"]
            got += answers
    assert {one.finish_reason for one in got} == {"stop"}
    assert len(got) == 6


def test_an_answer_that_drips_is_not_waited_for_for_ever() -> None:
    _, report = sample(Behaviour(misdeeds=["drip"]), requests(1), timeout_seconds=0.5)
    assert "x no answer in time" in report


def test_an_answer_that_stays_unusable_is_refused_after_some_times() -> None:
    behaviour = Behaviour(misdeeds=["empty"] * 5)
    found, _ = sample(behaviour, requests(1), attempts=2)
    assert (found["p0", 0].finish_reason, found["p0", 0].note) == (
        "refused",
        "no choice in the answer, 2 times",
    )
    assert len(behaviour.asked) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("401", "set OPENAI_API_KEY"),
        ("403", "set OPENAI_API_KEY"),
        ("404", "no model 'toy', or is not the whole address"),
    ],
)
def test_a_wrong_key_or_model_stops_at_once(
    status: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    with pytest.raises(UserError, match=message) as caught:
        sample(Behaviour(misdeeds=[status] * 40), requests(3))
    assert "planted-secret" not in str(caught.value)


def test_a_server_that_stays_down_ends_the_run_after_the_patience_and_keeps_what_it_answered() -> (
    None
):
    behaviour = Behaviour()
    got = list[Completion]()
    with (
        openai_server(behaviour) as url,
        OpenAIEngine(
            Endpoint(base_url=url, model="toy", concurrency=2, patience_minutes=0.02)
        ) as engine,
    ):
        answers = engine.generate(requests(6, samples=1), SAMPLING)
        got += [next(answers), next(answers)]
        behaviour.misdeeds = ["500"] * 1000
        with pytest.raises(UserError, match=r"has failed for 0.02 minutes \(status 500\)"):
            got += answers
    assert len({one.prompt_id for one in got}) == len(got) >= 2
    assert {f"prompt {one.prompt_id[1:]}" for one in got} == set(
        behaviour.answered
    )  # every answer that came was handed on


def test_a_server_that_fails_for_longer_than_a_moment_is_spoken_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_SILENT_SECONDS", 0.01)
    behaviour, told = Behaviour(misdeeds=["500"] * 4), list[str]()
    with (
        openai_server(behaviour) as url,
        OpenAIEngine(Endpoint(base_url=url, model="toy", concurrency=1), told.append) as engine,
    ):
        assert len(list(engine.generate(requests(1), SAMPLING))) == len(requests(1)[0].seeds)
    assert told == [f"{url} does not answer (status 500): it is asked again for up to 10 minutes."]


def test_no_more_than_so_many_are_under_way_at_once() -> None:
    behaviour = Behaviour(seconds=0.02)
    sample(behaviour, requests(20, samples=1), concurrency=3)
    assert behaviour.most_at_once == 3


def test_requests_and_tokens_a_minute_are_kept_to() -> None:
    started = time.monotonic()
    sample(Behaviour(), requests(11, samples=1), requests_per_minute=1200)
    assert time.monotonic() - started > 0.45  # ten gaps of 50 ms
    started = time.monotonic()
    many = [
        Request(prompt_id=str(n), prompt="x" * 400, prompt_token_ids=(), seeds=(n,))
        for n in range(60)
    ]
    sample(
        Behaviour(), many, Sampling(n=1, max_tokens=100), tokens_per_minute=120_000
    )  # 12,000 asked for: 10,000 at once, 2,000 a second
    assert time.monotonic() - started > 0.9

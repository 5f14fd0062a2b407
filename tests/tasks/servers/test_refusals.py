"""A server that says once and for all why it will not answer is quoted after a few requests; one
question that it refuses is one refused row.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines.base import Completion
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.model_servers import Behaviour, openai_server
from tests.tasks.sampling.engines.sampled import SAMPLING, requests, sample

Instead = Callable[[dict[str, Any]], tuple[int, Any] | None]


def refused(instead: Instead, count: int = 60) -> tuple[str, Behaviour]:
    """The sentence that a step ends with, and the server."""
    behaviour = Behaviour(instead=instead)
    with pytest.raises(UserError) as caught:
        sample(behaviour, requests(count, samples=1))
    return str(caught.value), behaviour


def always(status: int, **error: Any) -> Instead:
    return lambda body: (status, {"error": error})


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (
            401,
            {"message": "No such key"},
            r"refuses the key \(status 401: No such key\): set OPENAI_API_KEY",
        ),
        (
            402,
            {"message": "Insufficient Balance"},
            r"\(status 402: Insufficient Balance\): see to the account",
        ),
        (
            403,
            {"message": "Not for you"},
            r"refuses every request \(Not for you\): set OPENAI_API_KEY",
        ),
        (404, {"message": "model toy not found"}, r"has no model 'toy'.*\(model toy not found\)"),
        (
            429,
            {"message": "You exceeded your quota", "code": "insufficient_quota"},
            r"You exceeded your quota",
        ),
        (200, {"message": "Out of credits", "code": 402}, r"Out of credits"),
        (200, {"message": "Provider is gone"}, r"Provider is gone"),
        (
            400,
            {"message": "top_k is not permitted"},
            r"\(top_k is not permitted\): set sampling.top_k=0",
        ),
        (422, {"message": "temperature must be 1"}, r"set sampling.temperature=1"),
        (
            400,
            {"message": "request 7f3a: bad request"},
            r"refuses every request \(request 7f3a: bad request\)",
        ),
    ],
)
def test_what_is_refused_for_every_question_ends_after_a_few_in_the_server_s_words(
    status: int, error: Any, sentence: str
) -> None:
    said, behaviour = refused(always(status, **error))
    assert re.search(sentence, said), said
    assert 3 <= len(behaviour.asked) <= 6


def test_the_reason_is_the_same_whatever_number_the_request_has() -> None:
    numbers = iter(range(1000))
    _, behaviour = refused(
        lambda body: (400, {"error": {"message": f"request {next(numbers)} is malformed"}})
    )
    assert len(behaviour.asked) <= 6


def test_a_reply_that_is_no_json_is_shown_after_a_few() -> None:
    said, behaviour = refused(lambda body: (200, 'data: {"choices": []}\n\ndata: [DONE]\n'))
    assert 'half an answer, 3 times): what came begins with "data: {' in said
    assert len(behaviour.asked) == 3 * 3  # three questions, each as often as the setting says


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "Your input was flagged by moderation"),
        (403, "Forbidden"),
        (400, "prompt too long"),
        (401, "what?"),
        (422, "no"),
    ],
)
def test_one_question_that_is_refused_is_refused_alone(status: int, words: str) -> None:
    def instead(body: dict[str, Any]) -> tuple[int, Any] | None:
        return (
            (status, {"error": {"message": words}})
            if body["messages"][-1]["content"] == "prompt 3"
            else None
        )

    behaviour = Behaviour(instead=instead, seconds=0.01)
    found, _ = sample(behaviour, requests(60, samples=1), concurrency=2)
    assert [name for name, _ in found if found[name, 0].finish_reason == "refused"] == ["p3"]
    assert found["p3", 0].note == words


def test_many_questions_that_are_too_long_one_after_the_other_are_refused_alone() -> None:
    long = {f"prompt {n}" for n in range(20)}
    behaviour = Behaviour(
        refuse=lambda prompt: "maximum context length is 4 tokens" if prompt in long else None
    )
    found, _ = sample(behaviour, requests(30, samples=1))
    assert sum(completion.finish_reason == "refused" for completion in found.values()) == 20


def test_a_key_that_is_withdrawn_on_the_way_ends_it_and_what_was_answered_is_handed_on() -> None:
    behaviour, got = Behaviour(), list[Completion]()
    with (
        openai_server(behaviour) as url,
        OpenAIEngine(Endpoint(base_url=url, model="toy", concurrency=2)) as engine,
    ):
        answers = engine.generate(requests(60, samples=1), SAMPLING)
        got.append(next(answers))
        behaviour.instead = always(401, message="Key revoked")
        with pytest.raises(UserError, match="Key revoked"):
            got += answers
    assert {f"prompt {completion.prompt_id[1:]}" for completion in got} == set(behaviour.answered)
    assert len(behaviour.asked) < len(behaviour.answered) + 10


def test_a_moment_s_refusal_of_the_key_is_asked_again() -> None:
    found, report = sample(
        Behaviour(misdeeds=["401", "402"]), requests(12, samples=1), concurrency=1
    )
    assert {completion.finish_reason for completion in found.values()} == {"stop"}
    assert "1 x status 401, 1 x status 402" in report


def test_a_server_that_asks_to_be_left_alone_for_longer_than_we_are_patient_is_quoted_at_once() -> (
    None
):
    behaviour, began = Behaviour(misdeeds=["429"] * 9, retry_after="86400"), time.monotonic()
    with pytest.raises(
        UserError,
        match=r"asks to be left alone for 24 h \(status 429\), which is longer than patience_minutes=10",
    ):
        sample(behaviour, requests(9, samples=1))
    assert time.monotonic() - began < 3
    assert len(behaviour.asked) <= 3


def test_a_wait_that_takes_a_while_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapflow.tasks.servers.client._SILENT_SECONDS", 0.5)
    behaviour, told = Behaviour(misdeeds=["429"], retry_after="1"), list[str]()
    with (
        openai_server(behaviour) as url,
        OpenAIEngine(Endpoint(base_url=url, model="toy"), told.append) as engine,
    ):
        list(engine.generate(requests(1), SAMPLING))
    assert told == [f"{url} asks to be left alone for 1 s (status 429): it is asked again then."]


def test_the_other_name_of_max_tokens_is_learnt() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    error = {"message": words, "param": "max_tokens", "code": "unsupported_parameter"}
    behaviour = Behaviour(
        instead=lambda body: (400, {"error": error}) if "max_tokens" in body else None
    )
    found, report = sample(behaviour, requests(20, samples=1))
    assert {completion.finish_reason for completion in found.values()} == {"stop"}
    assert len(behaviour.asked) <= 23
    assert behaviour.asked[-1]["max_completion_tokens"] == SAMPLING.max_tokens
    assert report.startswith("toy: 20 answered, 0 refused; asked again after")


@pytest.mark.parametrize("key", ["sk-planted-1\n", "  sk-planted-1\r\n", "sk-planted-1"])
def test_a_key_is_sent_without_what_a_file_leaves_around_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    behaviour = Behaviour()
    sample(behaviour, requests(1))
    assert behaviour.keys == {"Bearer sk-planted-1"}


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("OPENAI_API_KEY", "sk-plan\nted", 8),
        ("OPENAI_API_KEY", "\ufeffsk-planted", 1),
        ("OPENAI_API_KEY", "sk–planted", 3),
        ("OPENAI_ORG_ID", "org\tplanted", 4),
        ("OPENAI_PROJECT_ID", "proj…", 5),
    ],
)
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(
    name: str, value: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name} cannot be sent: its character {place} ") as caught:
        OpenAIEngine(Endpoint(base_url="http://127.0.0.1:9/v1", model="toy"))
    assert "planted" not in str(caught.value)


def test_a_server_that_says_our_key_back_to_us_does_not_get_it_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-1")
    said, _ = refused(always(401, message="Incorrect key: sk-planted-1"))
    assert "Incorrect key: [OPENAI_API_KEY]" in said
    assert "sk-planted-1" not in said


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://", "http://[::1/v1", "http://h\x01/v1"]
)
def test_an_address_in_the_environment_that_is_none_is_a_sentence(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UserError, match="OPENAI_BASE_URL is not the address of a server"):
        OpenAIEngine(Endpoint(model="toy"))
    with pytest.raises(ValueError, match="must begin with http:// or https://"):
        Endpoint(model="toy", base_url=url)

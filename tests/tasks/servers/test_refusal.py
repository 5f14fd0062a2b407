"""What servers say when they refuse, in the forms in which they say it: whose fault it is, what
they name, what to set.
"""

import pytest

from dapflow.tasks.servers.refusal import (
    Said,
    advice,
    is_of_the_question,
    parameter_named,
    said_in,
    said_of,
    standing,
    status_in,
    whole,
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "Slow\n down", "code": "x"}}, "Slow down"),
        ({"error": "too much"}, "too much"),
        ({"object": "error", "message": "No such model", "code": 404}, "No such model"),
        (
            {"detail": [{"loc": ["body", "n"], "msg": "too large"}]},
            "[{'loc': ['body', 'n'], 'msg': 'too large'}]",
        ),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "out of stock"}}},
            "Provider returned error (out of stock)",
        ),
        ("<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        ({"error": {"message": "half \ud83d"}}, "half \ufffd"),
    ],
)
def test_the_words_of_a_server_are_found_wherever_it_puts_them(body: object, words: str) -> None:
    assert said_of(body).words == words


def test_an_error_in_an_answer_of_status_200_is_one_and_may_name_its_status() -> None:
    said = said_in({"error": {"message": "Out of credits", "code": 402}})
    assert said is not None
    assert (said.words, status_in(said)) == ("Out of credits", 402)
    assert said_in({"error": None, "choices": [{}]}) is None
    assert (
        said_in({"error": {"message": "late"}, "choices": [{}]}) is None
    )  # an answer with a remark
    assert said_in([1]) is None


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (401, Said(), "account"),
        (402, Said(), "account"),
        (404, Said(), "account"),
        (None, Said(words="no more today"), "account"),
        (429, Said(codes=("insufficient_quota",)), "account"),
        (400, Said(words="Insufficient Balance"), "account"),
        (
            429,
            Said(words="You exceeded your current quota. Please retry in 36 s."),
            "passes",
        ),  # what another provider says each minute
        (408, Said(), "passes"),
        (503, Said(words="insufficient funds"), "passes"),
        (400, Said(), "question"),
        (403, Said(), "question"),
        (413, Said(), "question"),
    ],
)
def test_a_refusal_passes_or_is_the_account_s_or_the_question_s(
    status: int | None, said: Said, expected: str
) -> None:
    assert standing(status, said) == expected


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 10",
        "Prompt too long",
        "flagged by moderation",
        "content_policy",
    ],
)
def test_what_is_said_of_one_question_is_known(words: str) -> None:
    assert is_of_the_question(words)
    assert parameter_named(Said(words=f"{words}; see max_tokens"), ["max_tokens"]) is None


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (Said(words="Unsupported", parameter="top_k"), "top_k"),
        (Said(words="top_logprobs must be at most 5"), "top_logprobs"),
        (Said(words="logprobs is not available"), "logprobs"),
        (Said(words="n > 1 is not supported"), "n"),
        (Said(words="[{'loc': ['body', 'n'], 'msg': 'too large'}]"), "n"),
        (Said(words="I can't do that, and won't > 1 time"), None),
        (Said(words="Unknown field: stopping"), None),
        (Said(words="messages: bad", parameter="messages"), None),
    ],
)
def test_a_refusal_names_a_parameter_of_the_request_or_none(said: Said, name: str | None) -> None:
    assert (
        parameter_named(
            said, ["messages", "model", "n", "logprobs", "top_logprobs", "top_k", "stop"]
        )
        == name
    )


def test_advice_names_the_setting_of_what_the_server_named() -> None:
    assert advice(
        Said(words="'temperature' does not support 0"), ["temperature"], "judge"
    ).startswith("set judge.temperature=1")
    assert advice(
        Said(words="top_k: extra fields not permitted"), ["top_k"], "sampling"
    ).startswith("set sampling.top_k=0")
    assert "top_k" not in advice(Said(words="bad request"), ["top_k"], "sampling")


def test_half_a_character_is_replaced_and_two_halves_are_one() -> None:
    assert whole("a\ud83d") == "a\ufffd"
    assert whole("\ud83d\ude00 é") == "\U0001f600 é"

"""What a server does not take is left out where that changes no meaning, and stays the user's to
change where it does.
"""

import pytest

from dapflow.tasks.servers.dialect import Dialect
from dapflow.tasks.servers.refusal import Said

REQUEST = {
    "messages": [],
    "temperature": 0.0,
    "top_p": 1.0,
    "max_tokens": 8,
    "seed": 1,
    "n": 3,
    "logprobs": True,
    "top_logprobs": 20,
}


@pytest.mark.parametrize(
    ("words", "changed", "how"),
    [
        ("'max_tokens' is not supported. Use 'max_completion_tokens' instead.", {"max_tokens": None, "max_completion_tokens": 8}, "for max_completion_tokens"),
        ("logprobs is not supported with this model", {"logprobs": None, "top_logprobs": None}, "without log-probabilities"),
        ("top_logprobs must be <= 5", {"logprobs": None, "top_logprobs": None}, "without log-probabilities"),
        ("n > 1 is not supported", {"n": 1}, "for one answer at a time"),
        ("unknown field 'seed'", {"seed": None}, "without a seed"),
        ("top_p cannot be given", {"top_p": None}, "without top_p, whose default is the same"),
    ],
)  # fmt: skip
def test_it_learns_from_a_refusal(words: str, changed: dict[str, object], how: str) -> None:
    dialect = Dialect()
    assert dialect.spoken(REQUEST) == REQUEST
    assert dialect.learn(Said(words=words), REQUEST) == how
    spoken = dialect.spoken(REQUEST)
    assert spoken == {
        name: value for name, value in {**REQUEST, **changed}.items() if value is not None
    }
    assert dialect.learn(Said(words=words), spoken) is None  # and does not go round in circles


@pytest.mark.parametrize(
    "words", ["'temperature' does not support 0", "'max_tokens' must be at least 16", "bad request"]
)
def test_what_would_change_the_meaning_is_not_changed(words: str) -> None:
    dialect = Dialect()
    assert dialect.learn(Said(words=words), REQUEST) is None
    assert dialect.spoken(REQUEST) == REQUEST

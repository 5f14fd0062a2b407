"""What of a request one server does not take, learnt from its refusals and left out or renamed from
then on, where that changes no meaning.

Test: pytest tests/tasks/servers/test_dialect.py
"""

from collections.abc import Callable, Mapping
from typing import Any

from dapflow.tasks.servers.refusal import Said, parameter_named

Body = dict[str, Any]
_LABELS = ("logprobs", "top_logprobs")
_OTHER_NAME = "max_completion_tokens"
_DEFAULTS = {"temperature": 1, "top_p": 1}


class Dialect:
    """How a server wants to be asked. It may be asked without log-probabilities or a seed, for one
    answer at a time, without a value that is the default, and for `max_completion_tokens`; whatever
    else it does not take is the user's to change."""

    def __init__(self) -> None:
        self._changes: dict[str, Callable[[Body], Body]] = {}

    def spoken(self, request: Mapping[str, Any]) -> Body:
        """The request as the server takes it."""
        body = dict(request)
        for change in self._changes.values():
            body = change(body)
        return body

    def learn(self, said: Said, spoken: Mapping[str, Any]) -> str | None:
        """How it is asked from now on, after a refusal of what was spoken; None where nothing can
        be changed.
        """
        name = parameter_named(said, spoken)
        if name in _LABELS:
            return self._change(
                "logprobs", lambda body: _without(body, *_LABELS), "without log-probabilities"
            )
        if name == "seed":
            return self._change(name, lambda body: _without(body, "seed"), "without a seed")
        if name == "n" and spoken["n"] != 1:
            return self._change(name, lambda body: {**body, "n": 1}, "for one answer at a time")
        if name == "max_tokens" and _OTHER_NAME in said.words:
            return self._change(name, _renamed, f"for {_OTHER_NAME}")
        if name in _DEFAULTS and spoken[name] == _DEFAULTS[name]:
            return self._change(
                name,
                lambda body: _without(body, name),
                f"without {name}, whose default is the same",
            )
        return None

    def _change(self, name: str, change: Callable[[Body], Body], how: str) -> str:
        self._changes[name] = change
        return how


def _without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}


def _renamed(body: Body) -> Body:
    return {_OTHER_NAME if name == "max_tokens" else name: value for name, value in body.items()}

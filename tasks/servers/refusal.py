"""What a server's refusal says and means: its own words, whether it passes, whose fault it is, and
what to set.

    said = said_of(body); standing(402, said)  # "account": every question would be refused for it
Test: pytest tests/tasks/servers/test_refusal.py
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Standing = Literal["passes", "account", "question"]
"""Whether the same request may be answered later, whether no request will be, or whether it is this
one that will not.
"""
_WORDS, _SHOWN = 300, 80  # characters of what a server says, and of what is no answer
_ACCOUNT = (401, 402, 404)
_SPENT = re.compile(
    r"insufficient[ _](quota|balance|credits?|funds)|billing_(hard_limit_reached|not_active)", re.I
)
_OF_THE_QUESTION = re.compile(
    r"too (long|many tokens)|context (length|window|size)|maximum context|moderat|flagged|"
    r"content[ _-]?(policy|filter|management)|safety|responsible ai|inappropriate",
    re.I,
)
_NUMBER = re.compile(
    r"\S*\d\S*"
)  # ids and counts, which differ between refusals for the same reason
_N_AT_MOST = re.compile(
    r"""(?<![\w'])n ?(?:[<>=!]|must |is |should |larger |greater )|number of (?:choices|completions)"""
)
_SETTINGS = {  # what sets a parameter of a request; {} is who asks, `sampling` or `judge`
    "temperature": "{}.temperature=1",
    "top_p": "{}.top_p=1",
    "max_tokens": "another {}.max_tokens",
    "top_k": "sampling.top_k=0",
    "min_p": "sampling.min_p=0",
    "repetition_penalty": "sampling.repetition_penalty=1",
    "stop": "sampling.stop=[]",
    "n": "sampling.n=1",
    "chat_template": "sampling.chat_template=null",
    "return_token_ids": "sampler.endpoint.token_ids=false",
    "logprobs": "judge.logprobs=false",
    "top_logprobs": "judge.logprobs=false",
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the server will not answer, however often it is asked. remedy: what to do, should it
    refuse every request.
    """

    WHOLLY: ClassVar[str] = (
        "refuses every request"  # what is said of a server that answers no other way
    )
    reason: str
    status: int | None = None
    remedy: str = ""


class Unaffordable(Refusal):
    """What the budget does not allow to be asked."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A server's own words about what went wrong, with the codes that it gives and the parameter
    that it names, where it does.
    """

    words: str = ""
    codes: tuple[str, ...] = ()
    parameter: str = ""


def said_of(body: Any) -> Said:
    """From the body of an answer, parsed JSON, or a text that is none: in one line, shortened, every character
    whole.
    """
    error = body.get("error") or body if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return Said(words=_line(error))
    words = error.get("message") or error.get("detail") or error.get("msg") or error
    raw = (
        error["metadata"].get("raw") if isinstance(error.get("metadata"), dict) else None
    )  # what a router was told
    return Said(
        words=_line(f"{words} ({raw})" if raw else words),
        codes=tuple(
            str(error[name]) for name in ("code", "type", "status") if error.get(name) is not None
        ),
        parameter=str(error.get("param") or ""),
    )


def said_in(answer: Any) -> Said | None:
    """The error that an answer of status 200 is; None for one that is none."""
    if not isinstance(answer, dict) or answer.get("choices"):
        return None
    return said_of(answer) if answer.get("error") or answer.get("object") == "error" else None


def status_in(said: Said) -> int | None:
    """The status that an error within an answer names as its code."""
    return next(
        (
            int(code)
            for code in said.codes
            if code.isascii() and code.isdigit() and 400 <= int(code) < 600
        ),
        None,
    )


def standing(status: int | None, said: Said) -> Standing:
    """What a refusal of this status (None: an error within an answer that names none) with these
    words means for the same request.
    """
    spent = any(_SPENT.search(text) for text in (said.words, *said.codes))
    if status is None or status in _ACCOUNT or (spent and status < 500):
        return "account"
    return "passes" if status in (408, 409, 429) or status >= 500 else "question"


def is_of_the_question(words: str) -> bool:
    """Whether it is what was asked that is refused, which says nothing of other questions: too
    long, or flagged.
    """
    return _OF_THE_QUESTION.search(words) is not None


def same_reason(words: str) -> str:
    """What refusals for the same reason have in common."""
    return _NUMBER.sub("#", words)


def parameter_named(said: Said, request: Iterable[str]) -> str | None:
    """The parameter of the request that a refusal names, if it does; longer names first
    (`top_logprobs` holds `logprobs`).
    """
    if is_of_the_question(said.words):
        return None
    names = sorted(set(request) - {"model", "messages", "prompt"}, key=len, reverse=True)
    if said.parameter in names:
        return said.parameter
    for name in names:
        if re.search(
            rf"""['"`]{name}['"`]""" if name == "n" else rf"(?<!\w){name}(?!\w)", said.words, re.I
        ):
            return name
    return "n" if "n" in names and _N_AT_MOST.search(said.words) else None


def advice(said: Said, request: Iterable[str], asker: str) -> str:
    """What to set, where the server names what it does not take. asker: `sampling` or `judge`."""
    name = parameter_named(said, request)
    if name in _SETTINGS:
        return f"set {_SETTINGS[name].format(asker)}, or take another endpoint"
    return "look at what it says, at the model's name and at the endpoint"


def whole(text: str) -> str:
    """The text with halves of characters, which no file can hold, replaced (U+FFFD); two halves
    that belong together become one.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shown(came: str) -> str:
    """The beginning of what came in place of an answer, in a sentence."""
    return f'"{_line(came)[:_SHOWN]}"' if came else "nothing"


def _line(value: Any) -> str:
    return whole(" ".join(str(value).split()))[:_WORDS]

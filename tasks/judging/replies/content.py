"""What a server's answer says: its text without its thoughts, how it ended, and what it thought of
the labels 1 and 2.

Test: pytest tests/tasks/judging/replies/test_parsing.py
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dapflow.tasks.judging.replies.parsing import FIRST, SECOND, read_choice
from dapflow.tasks.servers.client import UnusableAnswerError
from dapflow.tasks.servers.message import message_of

LABELS = {"1": FIRST, "2": SECOND}
_CUT = (
    "length",
    "max_tokens",
    "model_length",
    "max_length",
)  # why an answer ended that has not come to its end
_WITHHELD = ("content_filter", "safety", "recitation")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`tokens`: each with its text, and the log-probabilities of the likeliest tokens at its place;
    empty where the server tells none.

    cut: it ended at its limit, or in its thoughts; withheld: the server's content filter broke it
    off.
    """

    text: str
    tokens: Sequence[tuple[str, Mapping[str, float]]] = ()
    cut: bool = False
    withheld: bool = False


def reply_of(answer: Any) -> Reply:
    """The reply in a chat answer as JSON. Raises UnusableAnswerError where there is none: such an
    answer is asked for again.
    """
    try:
        choice = answer["choices"][0]
        message, ended = message_of(choice["message"]), str(choice.get("finish_reason")).lower()
        text = message.answer or choice["message"].get("refusal") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnusableAnswerError("no choice in the answer") from error
    only_thought = bool(message.thought) and not text
    return Reply(
        text=str(text),
        tokens=tuple(_tokens(choice)),
        cut=ended in _CUT or only_thought,
        withheld=ended in _WITHHELD,
    )


def _tokens(choice: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Without what a server leaves out or gives as null."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    for token in content if isinstance(content, list) else ():
        if not isinstance(token, Mapping) or not isinstance(token.get("token"), str):
            return
        tops = [
            top
            for top in token.get("top_logprobs") or ()
            if isinstance(top, Mapping) and isinstance(top.get("token"), str)
        ]
        yield (
            token["token"],
            {
                top["token"]: float(top["logprob"])
                for top in tops
                if isinstance(top.get("logprob"), int | float)
            },
        )


def first_is_better(reply: Reply) -> float | None:
    """The probability that the first answer is better: by the labels' log-probabilities where the
    verdict names the label, else 1, 0 or 0.5 as the text says; None for a text that says neither.
    """
    choice = read_choice(reply.text)
    if choice is None:
        return None
    for token, tops in _tokens_of(reply.tokens, choice.line):
        if LABELS.get(token.strip()) == choice.first:
            return _share_of_first(tops, choice.first)
    return choice.first


def _tokens_of(
    tokens: Sequence[tuple[str, Mapping[str, float]]], line: str
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The tokens from where the verdict's line begins for the last time; from the end on where it
    is not to be found as it is.
    """
    begins, place = "".join(token for token, _ in tokens).rfind(line), 0
    if begins < 0:
        yield from reversed(tokens)
        return
    for token, tops in tokens:
        place += len(token)
        if place > begins:
            yield token, tops


def _share_of_first(tops: Mapping[str, float], chosen: float) -> float:
    """softmax over the two labels (RLAIF, arXiv 2309.00267). One that is not among the likeliest
    has at most the least of theirs, and what they leave where the other label is the only one of
    them."""
    seen = {
        label: [logprob for token, logprob in tops.items() if token.strip() == label]
        for label in LABELS
    }
    if not any(seen.values()):
        return chosen
    others = [logprob for token, logprob in tops.items() if token.strip() not in LABELS]
    rest = (
        min(others)
        if others
        else math.log(max(1 - sum(math.exp(logprob) for logprob in tops.values()), 1e-9))
    )
    first, second = (_sum(seen[label]) if seen[label] else rest for label in LABELS)
    return 1 / (1 + math.exp(min(second - first, 700.0)))


def _sum(logprobs: Sequence[float]) -> float:
    highest = max(logprobs)
    return (
        highest + math.log(sum(math.exp(one - highest) for one in logprobs))
        if math.isfinite(highest)
        else -1e4
    )

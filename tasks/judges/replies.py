"""What a server's answer says: its text, and what it thought of the labels 1 and 2.

Test: pytest tests/tasks/judges/test_llm.py
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.engines.endpoint import UnusableAnswerError
from tasks.judges.parsing import FIRST, SECOND, parse_choice

LABELS = {"1": FIRST, "2": SECOND}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`tokens`: each with its text, and the log-probabilities of the likeliest tokens at its place; empty where the server tells none."""

    text: str
    tokens: Sequence[tuple[str, Mapping[str, float]]] = ()


def reply_of(answer: Any) -> Reply:
    """The reply in a chat answer as JSON. Raises UnusableAnswerError where there is none: such an answer is asked for again."""
    try:
        choice = answer["choices"][0]
        message, logprobs = choice["message"], choice.get("logprobs")
        text = message.get("content") or message.get("refusal") or ""
        tokens = [
            (token["token"], {one["token"]: float(one["logprob"]) for one in token.get("top_logprobs") or ()})
            for token in (logprobs or {}).get("content") or ()
        ]
        return Reply(text=str(text), tokens=tokens)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UnusableAnswerError("no choice in the answer") from error


def first_is_better(reply: Reply) -> float | None:
    """The probability that the first answer is better: by the labels' log-probabilities at the place where the label was written, else 1, 0
    or 0.5 as the text says; None for a text that says neither."""
    chosen = parse_choice(reply.text)
    if chosen is None:
        return None
    for token, tops in reversed(reply.tokens):
        if LABELS.get(token.strip()) == chosen:
            return _share_of_first(tops, chosen)
    return chosen


def _share_of_first(tops: Mapping[str, float], chosen: float) -> float:
    """softmax over the two labels (RLAIF, arXiv 2309.00267). One that is not among the likeliest has at most the least of theirs."""
    seen = {label: [logprob for token, logprob in tops.items() if token.strip() == label] for label in LABELS}
    if not any(seen.values()):
        return chosen
    first, second = (_sum(seen[label]) if seen[label] else min(tops.values()) for label in LABELS)
    return 1 / (1 + math.exp(min(second - first, 700.0)))


def _sum(logprobs: Sequence[float]) -> float:
    highest = max(logprobs)
    return highest + math.log(sum(math.exp(one - highest) for one in logprobs)) if math.isfinite(highest) else -1e4

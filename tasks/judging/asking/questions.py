"""What a judge is asked: the words, and for a judge behind a server the requests and the keys by
which the ledger knows them.

Test: pytest tests/tasks/judging/judges/test_llm.py
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dapflow.tasks.judging.asking.settings import LLMSettings
from dapflow.tasks.judging.judges.base import Match, Question
from dapflow.tasks.judging.judges.prompted import Prompted
from dapflow.tasks.judging.judges.templates import fill

Body = dict[str, Any]
_LIKELIEST = 20  # tokens whose log-probabilities are asked for: as many as OpenAI and vLLM give


def comparison_bodies(by: LLMSettings, template: str, match: Match) -> list[Body]:
    """The requests of a comparison: all samples in the order given, then all in the other."""
    return [body for text in comparison_texts(by, template, match) for body in _bodies(by, text)]


def earlier_bodies(by: LLMSettings) -> Callable[[Match], list[Body]] | None:
    """The same as an earlier version of the shipped template asked it, where there was one."""
    return (
        None
        if by.earlier is None
        else partial(comparison_bodies, by.earlier, by.earlier.prompt_template())
    )


def score_bodies(by: LLMSettings, template: str, question: Question) -> list[Body]:
    """The requests of a score."""
    return list(_bodies(by, score_text(by, template, question)))


def with_more_room(by: LLMSettings, body: Body) -> Body:
    """A request whose first answer was cut off, as it is asked once more."""
    return body | {"max_tokens": by.more_tokens}


def comparison_texts(by: Prompted, template: str, match: Match) -> tuple[str, str]:
    """What a judge is asked about a match, in the order given and in the other."""
    first, second = match.first, match.second
    return (
        _filled(by, template, prompt=match.prompt, first=first, second=second),
        _filled(by, template, prompt=match.prompt, first=second, second=first),
    )


def score_text(by: Prompted, template: str, question: Question) -> str:
    """What a judge is asked about a completion."""
    criteria = {"criteria": "\n".join(f"- {name}" for name in by.criteria)} if by.criteria else {}
    return _filled(by, template, prompt=question.prompt, completion=question.completion, **criteria)


def request_key(by: LLMSettings, body: Body) -> str:
    """Recognises a request wherever it comes from: all of it, and the model, and nothing else."""
    return hashlib.sha256(
        json.dumps([by.endpoint.model, body], sort_keys=True).encode()
    ).hexdigest()


def _filled(by: Prompted, template: str, **material: str) -> str:
    return fill(template, **material, **({"instruction": by.instruction} if by.instruction else {}))


def _bodies(by: LLMSettings, text: str) -> Iterator[Body]:
    labels = {"logprobs": True, "top_logprobs": _LIKELIEST} if by.compares and by.logprobs else {}
    for sample in range(by.samples):
        turns = [{"role": "user", "content": text}]
        yield {
            "messages": turns,
            "temperature": by.temperature,
            "max_tokens": by.answer_tokens,
            "seed": sample,
            **labels,
        }


def tokens_of(body: Any) -> int:
    """About how many tokens a request may take, prompt and answer together."""
    return sum(len(turn["content"]) for turn in body["messages"]) // 4 + body["max_tokens"]

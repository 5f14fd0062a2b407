"""Comparisons and an LLM judge to answer them, against the server on loopback."""

from collections.abc import Callable, Sequence
from typing import Any

from dapflow.storage import Lake
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.judges.base import Match, Question, Verdict, scores_of
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.model_servers import Behaviour, openai_server

# a cent a prompt token, two an answer's
PRICES = 'date = 2026-01-01\n[models]\n"judge" = { in = 10000.0, out = 20000.0 }\n'


def matches(count: int, words: int = 5) -> list[Match]:
    return [
        Match(
            completion_id=f"a{n}",
            other_id=f"b{n}",
            prompt=f"Question {n}?",
            first=f"answer {n} " + "good " * words,
            second=f"bad {n}",
        )
        for n in range(count)
    ]


def questions(count: int) -> list[Question]:
    return [
        Question(completion_id=f"a{n}", prompt=f"Question {n}?", completion=f"answer {n}")
        for n in range(count)
    ]


def responses(prompt: str) -> tuple[str, str]:
    """The two responses as they stand in a filled pairwise template."""
    first = prompt.partition("<response_1>")[2].partition("</response_1>")[0]
    return first, prompt.partition("<response_2>")[2].partition("</response_2>")[0]


def prefers_good(prompt: str) -> str:
    """Whatever place the better answer has."""
    first, second = responses(prompt)
    return "1" if first.count("good") > second.count("good") else "2"


def longer(prompt: str) -> str:
    """The longer response, whatever place it has."""
    first, second = responses(prompt)
    return "1" if len(first) > len(second) else "2"


def billed(behaviour: Behaviour) -> float:
    """Dollars, as the server counts."""
    return sum(0.01 * prompt + 0.02 * completion for prompt, completion in behaviour.tokens)


def compare(
    lake: Lake, behaviour: Behaviour, some: Sequence[Match], version: str = "v1", **settings: Any
) -> list[Verdict]:
    """Their verdicts; `settings` of LLM, with those of the endpoint under `endpoint`."""
    return _ask(lake, behaviour, version, settings, lambda judge: list(judge.compare(some)))


def score(
    lake: Lake, behaviour: Behaviour, some: Sequence[Question], version: str = "v1", **settings: Any
) -> list[Verdict]:
    """The same for scores."""
    return _ask(lake, behaviour, version, settings, lambda judge: scores_of(judge, some))


def _ask(
    lake: Lake,
    behaviour: Behaviour,
    version: str,
    settings: dict[str, Any],
    work: Callable[[Any], list[Verdict]],
) -> list[Verdict]:
    endpoint = {"model": "judge", **settings.pop("endpoint", {})}
    with openai_server(behaviour) as url:
        by = LLM(endpoint=Endpoint(**{"base_url": url, **endpoint}), **settings)
        with llm_judge(lake, version, by) as judge:
            return work(judge)

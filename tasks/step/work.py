"""What a step does and, at most, how much of it: declared beside the step, asked by whoever plans,
budgets, simulates or accounts.

    @step("completions", title=..., expects=..., activity="sampling", work=lambda prompts, sampling, **_: Work(...))
Functions of a step's work stand in its decorator or in a module called `work`: what is only
estimated there is no part of a version. Test: pytest tests/tasks/step/test_work.py
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from dapflow.storage import Lake

Activity = Literal[
    "loading",  # rows, or a model, come from outside
    "arranging",  # rows of the lake are put into another form
    "prompting",  # a policy is asked for new prompts
    "reading",  # what a policy has written is read from its replies: prompts, instances, judgements
    "sampling",  # a policy answers prompts
    "judging",  # somebody is asked for verdicts
    "combining",  # verdicts are made of others', and nobody is asked
    "accepting",
    "pairing",
    "training",
    "measuring",
]
"""What a step does, written down with each version that it makes."""

# About, where nobody has counted.
CHARACTERS_PER_TOKEN = 4.0
PROMPT_TOKENS = 60


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a planned version holds, at most: how many rows the next step goes on with, the prompts
    that they belong to, and the tokens of a row's prompt and of all answers in it.
    """

    rows: int
    prompts: int
    prompt_tokens: float = PROMPT_TOKENS
    answer_tokens: float = 0

    @classmethod
    def of_pairs(cls, rows: int, chosen: "Contents", rejected: "Contents") -> "Contents":
        """Of so many pairs of answers to the same prompts."""
        return cls(
            rows=rows,
            prompts=chosen.prompts,
            prompt_tokens=chosen.prompt_tokens,
            answer_tokens=chosen.answer_tokens + rejected.answer_tokens,
        )

    @property
    def tokens(self) -> float:
        """Of all rows, each with its prompt."""
        return self.rows * (self.prompt_tokens + self.answer_tokens)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What is asked over the network, at most.

    usd: of a request, None where nobody knows; source: where the price is from; limit: dollars
    after which nothing is asked any more; known: how many answers a lake holds already.
    """

    count: int
    model: str
    source: str
    usd: float | None
    limit: float | None
    known: Callable[[Lake], int]


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much a step does, at most.

    sampled, scored, trained: tokens. calls: questions to a judge, whoever it is; requests: those
    among them that go over the network. shards: whether its rows are shared out
    (tasks/step/shards.py). makes: what its rows are, where that is more than their number.
    """

    sampled: int = 0
    scored: int = 0
    trained: int = 0
    calls: int = 0
    requests: Requests | None = None
    shards: bool = False
    makes: Contents | None = None

    @property
    def tokens(self) -> dict[str, int]:
        """By kind of work, what there is."""
        every = {"sampled": self.sampled, "scored": self.scored, "trained": self.trained}
        return {kind: count for kind, count in every.items() if count}


NO_WORK = Work()


def no_model_work(**_: Any) -> Work:
    """Of a step that runs no model and asks nobody."""
    return NO_WORK

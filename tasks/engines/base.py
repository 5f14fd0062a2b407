"""What an engine is: requests in, completions out as they finish. One file per engine beside this one.

Test: pytest tests/tasks/engines
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """How completions are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    n: int = Field(default=8, ge=1, description="completions per prompt")
    temperature: float = Field(default=1.0, ge=0, description="0 takes the likeliest token")
    top_p: float = Field(default=1.0, gt=0, le=1, description="smallest set of tokens with this probability")
    top_k: int = Field(default=0, ge=0, description="the k likeliest tokens; 0 for all")
    max_tokens: int = Field(default=64, ge=1, description="a completion longer than this is cut off")
    system: str | None = Field(default=None, description="system prompt")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to be answered once per seed; each row's random stream depends on its own seed only."""

    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer. `token_ids` end with exactly one end-of-sequence token if and only if it finished by itself ("stop").

    logprobs: of each token, in nats, at temperature 1 over the whole vocabulary, whatever it was sampled with. sample: index into seeds.
    """

    prompt_id: str
    sample: int
    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """Yields every completion of every request, in any order; `on_tokens` hears how many tokens were sampled since the last call."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_tokens: Callable[[int], None] | None = None
    ) -> Iterator[Completion]: ...

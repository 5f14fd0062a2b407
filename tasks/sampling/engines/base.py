"""What an engine is: requests in, completions out as they finish. One file per engine beside this
one.

Test: pytest tests/tasks/sampling/engines
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """How completions are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    n: int = Field(default=8, ge=1, description="completions per prompt")
    temperature: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="0 takes the likeliest token"
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="smallest set of tokens with this probability"
    )
    top_k: int = Field(default=0, ge=0, description="the k likeliest tokens; 0 for all")
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="tokens with at least this share of the likeliest one's probability",
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        description="divides the logits of tokens that are there already; 1 for none",
    )
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="a completion ends where one of these begins, and is cut there"
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="other samples of the same policy and prompts; the recipe's seed decides too",
    )
    max_tokens: int = Field(
        default=64, ge=1, description="a completion longer than this is cut off"
    )
    system: str | None = Field(default=None, description="system prompt")
    chat_template: str | None = Field(
        default=None, description="Jinja text in place of the model's own; empty for none at all"
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to be answered once per seed; each row's random stream depends on its own seed only.

    prompt_token_ids: as the model reads it, for engines that hold the model; prompt, earlier: its
    text and the turns before it, for servers that render them themselves.
    """

    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    prompt: str = ""
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer. `token_ids` end with exactly one end-of-sequence token if and only if it finished
    by itself ("stop", without a stop string); they are empty where a server does not tell them.

    logprobs: of each token, in nats, at temperature 1 over the whole vocabulary, whatever it was
    sampled with; empty where not told. sample: index into seeds. note: why it was refused, or that
    a thought before the answer is left out.
    """

    prompt_id: str
    sample: int
    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length", "refused"]
    note: str | None = None


class Engine(Protocol):
    """Yields every completion of every request, in any order; `on_tokens` hears how many tokens
    were sampled since the last call.

    rows_per_chunk: rows that are committed together, about. together: whether it may be given many
    chunks at once; one whose numbers depend on what is in a batch is given a chunk at a time, so
    that a resumed run has the same.
    """

    rows_per_chunk: int
    together: bool

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Completion]: ...

    def report(self) -> str:
        """One sentence on what went wrong on the way; empty where nothing did."""
        ...

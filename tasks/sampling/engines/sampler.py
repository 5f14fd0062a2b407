"""Who draws the completions: a recipe's choice of engine, and how a step comes by the engine for a
policy.

    with engine_for(lake, policy, sampler, sampling, log) as (engine, prompter): ...
Test: pytest tests/flows/test_samplers.py
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.models.chat import context_length, render
from dapflow.tasks.models.directory import read_config, read_tokenizer
from dapflow.tasks.models.policy import load_policy, policy_path
from dapflow.tasks.sampling.engines.base import Engine, Sampling
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.sampling.engines.transformers import TransformersEngine
from dapflow.tasks.sampling.engines.vllm import VLLM, VLLMEngine, vllm_engine
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.servers.serve import served
from dapflow.tasks.step.progress import Say
from dapflow.tasks.step.shards import one_at_a_time

_ENGINES: dict[str, type[Engine]] = {
    "transformers": TransformersEngine,
    "vllm": VLLMEngine,
    "openai": OpenAIEngine,
}


class Sampler(BaseModel):
    """The engine that samples from the policy, and what it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[dict[str, Any]] = {
        "endpoint": Endpoint.MACHINE,
        "vllm": VLLM.MACHINE,
    }  # no part of a version
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    vllm: VLLM = VLLM()
    endpoint: Endpoint = Endpoint()
    serve: str | None = Field(
        default=None,
        description=(
            "for openai: command of a server, with {model} and {port}, that runs while the policy "
            "is sampled from"
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.engine == "openai" and not self.endpoint.model:
            raise ValueError(
                "engine: openai needs endpoint.model, the name that the server knows the model by"
            )
        if self.serve is not None and (self.engine != "openai" or "{port}" not in self.serve):
            raise ValueError(
                "serve: goes with engine openai, and its command must take {port} (and {model})"
            )
        return self

    @property
    def of_the_policy(self) -> bool:
        """Whether it is the policy that answers, not a model that only a server knows."""
        return self.engine != "openai" or self.serve is not None

    @property
    def own(self) -> "Sampler":
        """This one, or, where it asks another model, the one that samples from a policy in its
        place.
        """
        return self if self.of_the_policy else Sampler()

    def prompts_per_chunk(self, n: int) -> int:
        """How many prompts, of n completions each, are sampled and committed together."""
        return max(1, _ENGINES[self.engine].rows_per_chunk // n)


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """Renders prompts as the policy reads them. Without a tokenizer, for a model that only a server
    knows, it gives no token ids.
    """

    sampling: Sampling
    tokenizer: Any = None
    context: int = 0

    def render(
        self, prompt: str, earlier: Sequence[str] = ()
    ) -> tuple[tuple[int, ...], str | None]:
        """Token ids, and why the prompt cannot be sampled from, if so. earlier: the turns before
        it.
        """
        if not prompt.strip():
            return (), "the prompt is empty"
        if self.tokenizer is None:
            return (), None
        ids = tuple(
            render(
                self.tokenizer, prompt, self.sampling.system, self.sampling.chat_template, earlier
            )
        )
        room = self.context - self.sampling.max_tokens
        if len(ids) > room:
            reason = (
                f"prompt of {len(ids)} tokens and {self.sampling.max_tokens} to sample do not fit "
                f"the context of {self.context}"
            )
            return ids, reason
        return ids, None


@contextmanager
def engine_for(
    lake: Lake,
    policy: ModelRef,
    sampler: Sampler,
    sampling: Sampling,
    log: Path,
    say: Say = lambda sentence: None,
) -> Iterator[tuple[Engine, Prompter]]:
    """The engine for a policy of the lake, and what renders its prompts. log: where a server that
    it starts may write.
    """
    if sampler.engine == "transformers":
        with one_at_a_time:
            loaded = load_policy(lake, policy)
            yield (
                TransformersEngine(loaded),
                Prompter(
                    sampling=sampling,
                    tokenizer=loaded.tokenizer,
                    context=context_length(loaded.model),
                ),
            )
    elif sampler.engine == "vllm":
        path = policy_path(lake, policy)
        with one_at_a_time:
            yield (
                vllm_engine(path, sampler.vllm, say),
                _prompter(path, sampling, sampler.vllm.max_model_len),
            )
    elif sampler.serve is None:
        endpoint = sampler.endpoint.model_copy(
            update={"token_ids": False}
        )  # another model's tokens are not the policy's
        with OpenAIEngine(endpoint, say) as engine:
            yield engine, Prompter(sampling=sampling)
    else:
        path = policy_path(lake, policy)
        with (
            served(sampler.serve, path, log, say=say) as url,
            OpenAIEngine(sampler.endpoint.model_copy(update={"base_url": url}), say) as engine,
        ):
            yield engine, _prompter(path, sampling)


def _prompter(path: Path, sampling: Sampling, most: int | None = None) -> Prompter:
    return Prompter(
        sampling=sampling,
        tokenizer=read_tokenizer(path),
        context=min(context_length(read_config(path)), most or sys.maxsize),
    )

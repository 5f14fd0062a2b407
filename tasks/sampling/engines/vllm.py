"""vLLM as an engine: one model stays in memory between steps and iterations, and a new policy's
weights are loaded into it.

Every swap is proved: the log-probabilities of a fixed probe under the engine have become those that
the policy was saved with, or the run stops.
vllm is used in this process where it is installed, else through the Python that DAPFLOW_VLLM_PYTHON
names. Test: make test-vllm
"""

import atexit
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoConfig

from dapflow.storage import UserError
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.directory import files_digest
from dapflow.tasks.models.names import dtype_of, release
from dapflow.tasks.models.parameters import ADAPTER, adapter_base
from dapflow.tasks.models.probe import probe_of
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.vllm_holder import Holder, hold
from dapflow.tasks.step.progress import Say

_CPU_BATCH_TOKENS = 4096
_NOT_SHAPE = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")
TOLERANCE, HALF_PRECISION_TOLERANCE = 0.05, 0.2  # nats a token, on average over the probe
FLOOR = 0.002  # what two implementations in fp32 may differ by


class VLLM(BaseModel):
    """How vLLM holds the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[set[str]] = {"tensor_parallel", "memory"}
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share each layer")
    memory: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="share of the GPU's memory; on a CPU VLLM_CPU_KVCACHE_SPACE says how much",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="prompt and completion; the model's context by default"
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="swap adapters of up to this rank instead of whole weights; 0: whole weights",
    )


class VLLMEngine:
    """An Engine on a policy's weights. Take one from `vllm_engine`."""

    rows_per_chunk, together = 512, False

    def __init__(self, holder: Holder) -> None:
        self.holder = holder

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Completion]:
        """Every completion of every request, as they finish; a prompt's keys and values are
        computed once, and kept as a prefix.
        """
        asked = [
            {
                "key": f"{sample}/{request.prompt_id}",
                "token_ids": list(request.prompt_token_ids),
                "seed": seed % 2**63,
            }
            for request in requests
            for sample, seed in enumerate(request.seeds)
        ]
        for answer in self.holder.stream(requests=asked, params=_params(sampling)):
            sample, _, prompt_id = answer["key"].partition("/")
            if on_tokens:
                on_tokens(len(answer["token_ids"]))
            yield Completion(
                prompt_id=prompt_id,
                sample=int(sample),
                text=answer["text"],
                token_ids=answer["token_ids"],
                logprobs=answer["logprobs"],
                finish_reason="length" if answer["finish_reason"] == "length" else "stop",
            )

    def report(self) -> str:
        return ""


@dataclass
class _Held:
    """The engine that this process keeps: what it was made with, the model whose weights are its
    base, and the one it answers as.
    """

    made_with: str
    holder: Holder
    base: Path
    model: Path


_held: list[_Held] = []  # one at most


def vllm_engine(model: Path, settings: VLLM, say: Say = lambda sentence: None) -> VLLMEngine:
    """The engine with this policy's weights: swapped into the one that is there, else loaded, and
    proved in both cases.

    Raises UserError where there is no vllm, where it fails to load, and where it does not sample
    from these weights.
    """
    made_with, began = _shape(model, settings), time.monotonic()
    if _held and (_held[0].made_with != made_with or _held[0].holder.ended):
        close()
    if not _held:
        say("loading vllm: half a minute on a CPU")
        release()  # the memory is vllm's now
        holder = hold()
        _held.append(_Held(made_with=made_with, holder=holder, base=model, model=model))
        holder.call("load", model=str(model), options=options_of(model, settings))
        seconds = time.monotonic() - began
        _prove(model, None, say, f"loaded in {seconds:.2f} s")
    else:
        held = _held[0]
        token_ids, _ = probe_of(model)
        before = held.holder.call("probe", token_ids=token_ids)
        began = time.monotonic()
        _swap(held, model, settings)
        seconds = time.monotonic() - began
        _prove(model, before, say, f"new weights in the running engine in {seconds:.2f} s")
    return VLLMEngine(_held[0].holder)


def _prove(model: Path, before: list[float] | None, say: Say, what: str) -> None:
    """Ask the engine for the probe: its log-probs are the policy's own, and after a swap nearer to
    them than those from `before` it.
    """
    held = _held[0]
    token_ids, own = probe_of(model)
    theirs = held.holder.call("probe", token_ids=token_ids)
    off, was = _distance(theirs, own), None if before is None else _distance(before, own)
    exact = dtype_of(model) == torch.float32
    allowed = TOLERANCE if exact else HALF_PRECISION_TOLERANCE
    if was is not None and exact:
        allowed = min(allowed, max(FLOOR, was / 2))
    unmoved = (
        theirs == before and probe_of(held.model)[1] != own
    )  # in half precision a small change is hidden in the distance alone
    told = "" if was is None else f" (before: {was:.4f})"
    if unmoved or not off <= allowed:
        close()
        raise UserError(
            f"vllm does not sample from the weights in {model}: its log-probabilities of the "
            f"probe are {off:.4f} nats a token off{told}. "
            "Run again; if it stays, sample with sampler.engine=transformers."
        )
    held.model = model
    say(f"vllm: {what}; probe {off:.4f} nats a token from the policy's own{told}")


def close() -> None:
    """End the engine that this process keeps."""
    while _held:
        _held.pop().holder.close()


atexit.register(close)


def _shape(model: Path, settings: VLLM) -> str:
    """What two models have in common when one's weights can take the place of the other's."""
    config = json.loads((model / "config.json").read_text())
    shape = {name: value for name, value in config.items() if name not in _NOT_SHAPE}
    return json.dumps([shape, str(dtype_of(model)), settings.model_dump()], sort_keys=True)


def _swap(held: _Held, model: Path, settings: VLLM) -> None:
    """Load the weights; where only an adapter has been trained on the very weights that are the
    engine's base, the adapter alone.
    """
    if settings.lora_rank and adapter_base(model) == files_digest(held.base):
        held.holder.call("adapter", path=str(model / ADAPTER))
    else:
        held.holder.call("weights", model=str(model))
        held.base = model


def _distance(theirs: Sequence[float], own: Sequence[float]) -> float:
    """Nats a token, on average."""
    return fmean(abs(a - b) for a, b in zip(theirs, own, strict=True))


def options_of(model: Path, settings: VLLM) -> dict[str, Any]:
    """What `vllm.LLM` is made with."""
    options: dict[str, Any] = {
        "dtype": str(dtype_of(model)).removeprefix("torch."),
        "tensor_parallel_size": settings.tensor_parallel,
        "max_model_len": settings.max_model_len,
    }
    if settings.lora_rank:
        options |= {"enable_lora": True, "max_lora_rank": settings.lora_rank}
    if torch.cuda.is_available():
        return options | {"gpu_memory_utilization": settings.memory}
    # On a CPU a seeded request whose prompt is computed in two parts ends the engine ("CPU
    # Generator does not use offset").
    whole = max(
        settings.max_model_len
        or context_length(AutoConfig.from_pretrained(model, local_files_only=True)),
        _CPU_BATCH_TOKENS,
    )
    return options | {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": whole,
    }


def _params(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": list(sampling.stop),
        "max_tokens": sampling.max_tokens,
    }

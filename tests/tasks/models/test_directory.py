"""What a model directory must hold before anything runs. Run: pytest
tests/tasks/models/test_directory.py
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from dapflow.storage import UserError
from dapflow.tasks.models.names import load, release, resolve


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache directory with the toy in it: two layers, an output head of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAPFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield resolve("toy").path
    release()


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    """A directory of one's own with the toy's files."""
    return Path(shutil.copytree(toy, tmp_path / "model"))


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Write the model's weights again, changed."""

    def changed(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        change(weights)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return changed


def _lose_norm(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.layers.1.input_layernorm.weight"]


def _lose_layer(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if name.startswith("model.layers.1.")]:
        del weights[name]


def _narrow(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(96, 64)


def _one_layer(model: Path) -> None:
    """A configuration of fewer layers than there are weights."""
    _edit(model / "config.json", num_hidden_layers=1)


def _another_kind(model: Path) -> None:
    """The weights are a GPT-2's by their names."""
    weights = load_file(model / "model.safetensors")
    renamed = {
        name.replace("model.layers", "transformer.h"): weight for name, weight in weights.items()
    }
    save_file(renamed, model / "model.safetensors", metadata={"format": "pt"})


def _reward_model(tied: bool) -> Callable[[Path], None]:
    """A scoring head in place of the language model's; tied: the language model's head is the
    embedding, so that none is missing.
    """

    def scoring(model: Path) -> None:
        _edit(model / "config.json", tie_word_embeddings=tied)
        AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(
            model
        )

    return scoring


def _without_shard(model: Path) -> None:
    LlamaForCausalLM.from_pretrained(model).save_pretrained(model, max_shard_size="200KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    sorted(model.glob("model-*.safetensors"))[1].unlink()


def _adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "some/base", "peft_type": "LORA"})
    )
    (model / "config.json").unlink()


def _quantised(model: Path) -> None:
    _edit(model / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def _more_tokens(model: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    tokenizer.add_tokens(["<|tool|>"])
    tokenizer.save_pretrained(model)


def _no_end_anywhere(model: Path) -> None:
    _without_end_token(model)
    for name in ("config.json", "generation_config.json"):
        _edit(model / name, eos_token_id=None)


def _without_end_token(model: Path) -> None:
    _edit(model / "tokenizer_config.json", eos_token=None)


def _templates(*names: str) -> Callable[[Path], None]:
    def several(model: Path) -> None:
        template = (model / "chat_template.jinja").read_text()
        (model / "chat_template.jinja").unlink()
        _edit(
            model / "tokenizer_config.json",
            chat_template=[{"name": name, "template": f"{name}{template}"} for name in names],
        )

    return several


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a lost weight": (
        _weights(_lose_norm),
        r"of a LlamaForCausalLM: it lacks model\.layers\.1\.input_layernorm\.weight\. What is missing",
    ),
    "a lost layer": (
        _weights(_lose_layer),
        r"it lacks model\.layers\.1\.input_layernorm\.weight, .* and 5 more",
    ),
    "another shape": (
        _weights(_narrow),
        r"in another shape model\.layers\.0\.mlp\.up_proj\.weight \(96x64, not 128x64\)",
    ),
    "fewer layers": (_one_layer, r"it does not know model\.layers\.1\."),
    "another architecture": (
        _another_kind,
        r"it lacks model\.layers\.0.*, and it does not know transformer\.h\.0",
    ),
    "a reward model": (
        _reward_model(tied=False),
        r"it lacks lm_head\.weight, and it does not know score\.weight \(it was saved as a LlamaForSequenceClassification\)",
    ),
    "a tied reward model": (
        _reward_model(tied=True),
        r"it does not know score\.weight \(it was saved as a LlamaForSequenceClassification\)",
    ),
    "a lost shard": (
        _without_shard,
        r"is not whole: its index names model-00002-of-0000\d\.safetensors, which is not there",
    ),
    "an adapter": (_adapter, "holds an adapter for some/base, not a whole model: merge"),
    "quantised weights": (_quantised, r"is quantised \(gptq\)"),
    "tokens without a row": (
        _more_tokens,
        "has 1,025 tokens, but the model's embedding and vocabulary only 1,024",
    ),
    "no end": (_no_end_anywhere, "names an end-of-sequence token: set `eos_token`"),
    "no default template": (
        _templates("rag", "tools"),
        r"several chat templates \(rag, tools\) and none called `default`",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_directory_that_would_run_on_chance_is_refused_by_name_of_what_is_wrong(
    copy: Path, kind: str
) -> None:
    damage, sentence = REFUSED[kind]
    damage(copy)
    with pytest.raises(UserError, match=sentence):
        resolve(str(copy))


def test_a_mended_directory_is_looked_at_again(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    _weights(_lose_layer)(copy)
    with pytest.raises(UserError, match="it lacks"):
        resolve(str(copy))
    (copy / "model.safetensors").write_bytes(whole)
    assert resolve(str(copy)).path == copy


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_the_embedding_is_not_missing(copy: Path, tied: bool) -> None:
    config = LlamaConfig.from_pretrained(copy, tie_word_embeddings=tied)
    LlamaForCausalLM(config).save_pretrained(copy)
    assert ("lm_head.weight" in load_file(copy / "model.safetensors")) is not tied
    model: Any = load(resolve(str(copy)).path).model
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied


def test_of_several_templates_the_default_is_taken(copy: Path) -> None:
    _templates("default", "tools")(copy)
    tokenizer = load(resolve(str(copy)).path).tokenizer
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    ).startswith("default")


def test_a_tokenizer_without_an_end_takes_the_models_own(copy: Path) -> None:
    _without_end_token(copy)
    assert load(resolve(str(copy)).path).tokenizer.eos_token == "<|eos|>"


def test_an_architecture_without_fused_attention_runs_with_the_plain_one(copy: Path) -> None:
    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    Gemma2ForCausalLM(Gemma2Config(**small, head_dim=8, vocab_size=1024)).save_pretrained(copy)
    assert load(resolve(str(copy)).path).model.config._attn_implementation == "eager"

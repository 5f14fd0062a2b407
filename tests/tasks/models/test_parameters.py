"""Which weights are trained, that an adapter starts as nothing and is merged exactly, and that
checkpointed layers give the same gradients.
"""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dapflow.tasks.models.packed.attention import shared_prefix
from dapflow.tasks.models.packed.logps import packed_token_logps, pick_scorer, sequence_logps
from dapflow.tasks.models.parameters import (
    adapter_base,
    checkpointed,
    merge,
    save_adapter,
    trainable,
)
from dapflow.tasks.training.fit import fit
from tests.tasks.training.toys import CONFIGS, DPO, GROUPS, SETTINGS, same_bits, toy_model


def test_a_lora_run_starts_at_the_reference_trains_the_adapter_only_and_merges_to_the_same_model(
    tmp_path: Path,
) -> None:
    base = toy_model()
    before = copy.deepcopy(base.state_dict())
    model = trainable(base, "lora", lora_rank=4, seed=0)
    logs = fit(
        model,
        GROUPS,
        DPO,
        SETTINGS.model_copy(update={"parameters": "lora", "epochs": 6, "learning_rate": 1e-2}),
        seed=0,
    )
    assert logs[0].loss == pytest.approx(math.log(2), abs=1e-5)
    assert logs[-1].loss < logs[0].loss
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if "lora" in n
    }
    with model.disable_adapter():  # the reference is the base with the adapter off
        for group in GROUPS[:3]:
            found = sequence_logps(model, [group], pick_scorer(model))[0]
            torch.testing.assert_close(found, torch.tensor(group.reference), atol=1e-4, rtol=1e-5)
    adapted = sequence_logps(model, GROUPS[:3], pick_scorer(model))
    save_adapter(model, tmp_path / "adapter", base="digest of the base")
    merged = merge(model)
    torch.testing.assert_close(
        sequence_logps(merged, GROUPS[:3], pick_scorer(merged)), adapted, atol=1e-4, rtol=1e-4
    )
    assert merged.state_dict().keys() == before.keys()
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.sha256",
    }
    assert adapter_base(tmp_path) == "digest of the base"
    assert adapter_base(tmp_path / "adapter") is None


def test_a_killed_lora_run_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"parameters": "lora"})
    whole, resumed = (trainable(toy_model(), "lora", lora_rank=4, seed=7) for _ in range(2))
    fit(whole, GROUPS, DPO, settings, seed=3)
    fit(
        trainable(toy_model(), "lora", lora_rank=4, seed=7),
        GROUPS,
        DPO,
        settings,
        seed=3,
        checkpoint_dir=tmp_path,
    )
    (tmp_path / "step-00000006" / "state.json").unlink()
    fit(resumed, GROUPS, DPO, settings, seed=3, checkpoint_dir=tmp_path)
    assert same_bits(resumed, whole)


def test_the_head_alone() -> None:
    base = toy_model(CONFIGS["qwen2"])
    model = trainable(base, "head", lora_rank=1, seed=0)
    before = copy.deepcopy(model.state_dict())
    fit(model, GROUPS, DPO, SETTINGS, seed=0)
    assert {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    } == {"lm_head.weight"}
    assert merge(model) is model


@pytest.mark.parametrize("name", ["llama", "gpt-neox", "gemma2"])
def test_checkpointed_layers_give_the_same_gradients_and_no_dropout(name: str) -> None:
    logs = [
        fit(
            toy_model(CONFIGS[name]),
            GROUPS,
            DPO,
            SETTINGS.model_copy(update={"gradient_checkpointing": enabled}),
            seed=0,
        )
        for enabled in (False, True)
    ]
    assert [log.loss for log in logs[1]] == pytest.approx([log.loss for log in logs[0]], rel=1e-5)
    assert [log.gradient_norm for log in logs[1]] == pytest.approx(
        [log.gradient_norm for log in logs[0]], rel=1e-4
    )


def test_checkpointing_is_on_while_it_lasts_only() -> None:
    model, calls = toy_model().eval(), list[int]()
    model.get_decoder().layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    for enabled, wanted in ((True, 2), (False, 1)):  # once more in the backward pass
        calls.clear()
        with shared_prefix(model), checkpointed(model, enabled):
            sequence_logps(model, GROUPS[:1], packed_token_logps)[0].sum().backward()
        assert len(calls) == wanted
    assert not any(module.training for module in model.modules())

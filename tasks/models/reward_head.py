"""A reward model at work: a linear head on the hidden states of a backbone, the policy's own or one
that was trained with it.

    load_scorer(lake, reward_model).scores(groups)     in logits; trained by tasks/training/{pointwise,backbone}.py
Test: pytest tests/tasks/training/reward/test_reward.py
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.models.names import Loaded
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.features import answer_features
from dapflow.tasks.models.parameters import trainable
from dapflow.tasks.models.policy import load_policy

ADAPTER_FILE, WEIGHTS_FILE = "adapter.safetensors", "backbone.safetensors"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model whose hidden states are scored, and the tokenizer that goes with it."""

    model: PreTrainedModel
    tokenizer: Any


class Scorer:
    """A trained reward model: scores answers in logits, so that sigmoid(score_a - score_b) is the
    probability that a is better.
    """

    def __init__(self, backbone: Backbone, weight: Tensor, bias: float, layers: int) -> None:
        self.backbone, self.weight, self.bias, self.layers = backbone, weight, bias, layers

    def scores(self, groups: Sequence[Group], **options: Any) -> list[Tensor]:
        """The score of each answer of each group, fp64 [answers]."""
        found = answer_features(self.backbone.model, groups, self.layers, **options)
        return [features.double() @ self.weight + self.bias for features in found]


def load_backbone(directory: Path, base: Loaded, parameters: str) -> Backbone:
    """The backbone that `save_backbone` wrote, on top of the model it was trained from."""
    if parameters == "head":
        return Backbone(model=base.model, tokenizer=base.tokenizer)
    model = copy.deepcopy(base.model).float()
    if parameters == "lora":
        from peft import set_peft_model_state_dict

        state = load_file(directory / ADAPTER_FILE)
        rank = next(tensor.shape[0] for name, tensor in state.items() if "lora_A" in name)
        model = trainable(model, "lora", rank, seed=0)
        set_peft_model_state_dict(model, state)
    else:
        model.get_decoder().load_state_dict(load_file(directory / WEIGHTS_FILE))
    return Backbone(model=model.eval(), tokenizer=base.tokenizer)


def load_scorer(lake: Lake, ref: ModelRef) -> Scorer:
    """A reward model of the lake, ready to score."""
    directory: Path = lake.model(ref)["path"]
    config = json.loads((directory / "reward.json").read_text())
    base = lake.find(config["backbone"])
    assert isinstance(base, ModelRef), "the backbone is a parent of this version"
    head = load_file(directory / "head.safetensors")
    backbone = load_backbone(directory, load_policy(lake, base), config["parameters"])
    return Scorer(backbone, head["weight"], float(head["bias"]), config["layers"])

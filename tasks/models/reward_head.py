"""A reward model at work: a linear head on the hidden states of a backbone, the policy's own or one
that was trained with it.

    load_scorer(lake, reward_model).scores(groups)     log-odds; trained by tasks/training/reward
Test: pytest tests/tasks/training/reward/test_reward.py
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

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


@dataclass(frozen=True, kw_only=True)
class Head:
    """score = features @ weight + bias, fp64. scale: what calibration has multiplied both with, so
    that differences of scores are log-odds.
    """

    weight: Tensor
    bias: float
    scale: float = 1.0

    @classmethod
    def centred(cls, weight: Tensor, features: Tensor) -> Self:
        """With the bias that makes the mean score of these features [..., width] zero."""
        return cls(weight=weight, bias=-float((features @ weight).mean()))

    def scaled(self, scale: float) -> Self:
        """The same order of answers, at another scale."""
        return replace(
            self, weight=self.weight * scale, bias=self.bias * scale, scale=self.scale * scale
        )

    def scores(self, features: Tensor) -> Tensor:
        """Of features [..., width]: [...]."""
        return features.double() @ self.weight + self.bias


class Scorer:
    """A trained reward model: scores answers in log-odds, so that sigmoid(score_a - score_b) is the
    probability that a is better.
    """

    def __init__(self, backbone: Backbone, head: Head, layers: int) -> None:
        self.backbone, self.head, self.layers = backbone, head, layers

    def scores(self, groups: Sequence[Group], **options: Any) -> list[Tensor]:
        """The score of each answer of each group, fp64 [answers]."""
        found = answer_features(self.backbone.model, groups, self.layers, **options)
        return [self.head.scores(features) for features in found]


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
    saved = load_file(directory / "head.safetensors")
    head = Head(
        weight=saved["weight"],
        bias=float(saved["bias"]),
        scale=config.get("scale", 1.0),  # lakes keep heads of before there was a calibration
    )
    backbone = load_backbone(directory, load_policy(lake, base), config["parameters"])
    return Scorer(backbone, head, config["layers"])

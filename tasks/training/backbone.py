"""The network under a reward model's head: the policy's own, with a LoRA adapter, or with all its weights trained.

Test: pytest tests/tasks/training/test_reward.py
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.models import Loaded
from tasks.training.batches import Group
from tasks.training.features import pick_features
from tasks.training.losses import bradley_terry
from tasks.training.parameters import trainable
from tasks.training.settings import RewardModel

_ADAPTER, _WEIGHTS = "adapter.safetensors", "backbone.safetensors"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model whose hidden states are scored, and the tokenizer that goes with it."""

    model: PreTrainedModel
    tokenizer: Any


def tune(base: Backbone, groups: Sequence[Group], margins: Tensor, settings: RewardModel, seed: int) -> Backbone:
    """Train a copy of the backbone together with a linear head by the Bradley-Terry loss, in fp32. Groups: chosen first, then rejected."""
    model = trainable(copy.deepcopy(base.model).float(), settings.parameters, settings.lora_rank, seed)
    head = torch.zeros(model.config.get_text_config().hidden_size, requires_grad=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW([*weights, head], lr=settings.learning_rate, weight_decay=0.0)
    features = pick_features(model)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(groups), generator=rng).split(settings.batch_size):
            scores = features(model, [groups[index] for index in batch.tolist()], settings.layers) @ head
            chosen, rejected = scores.view(-1, 2).unbind(dim=1)
            bradley_terry(chosen, rejected, margins[batch].float()).mean().backward()
            torch.nn.utils.clip_grad_norm_([*weights, head], 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return Backbone(model=model.eval(), tokenizer=base.tokenizer)


def save_backbone(directory: Path, backbone: Backbone, parameters: str) -> None:
    """Write what was trained of the backbone beside the head."""
    if parameters == "lora":
        save_file({name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(backbone.model).items()}, directory / _ADAPTER)
    elif parameters == "full":
        decoder = backbone.model.get_decoder()
        save_file({name: tensor.contiguous() for name, tensor in decoder.state_dict().items()}, directory / _WEIGHTS)


def load_backbone(directory: Path, base: Loaded, parameters: str) -> Backbone:
    """The backbone that `save_backbone` wrote, on top of the model it was trained from."""
    if parameters == "head":
        return Backbone(model=base.model, tokenizer=base.tokenizer)
    model = copy.deepcopy(base.model).float()
    if parameters == "lora":
        state = load_file(directory / _ADAPTER)
        rank = next(tensor.shape[0] for name, tensor in state.items() if "lora_A" in name)
        model = trainable(model, "lora", rank, seed=0)
        set_peft_model_state_dict(model, state)
    else:
        model.get_decoder().load_state_dict(load_file(directory / _WEIGHTS))
    return Backbone(model=model.eval(), tokenizer=base.tokenizer)

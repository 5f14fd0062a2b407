"""The network under a reward model's head, trained together with it: the policy's own with a LoRA
adapter, or with all its weights trained.

Test: pytest tests/tasks/training/reward/test_reward.py
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.packed.batches import Group, epochs, microbatches
from dapflow.tasks.models.packed.features import pick_features
from dapflow.tasks.models.parameters import trainable
from dapflow.tasks.models.reward_head import ADAPTER_FILE, WEIGHTS_FILE, Backbone, Head, Scorer
from dapflow.tasks.training import checkpoints
from dapflow.tasks.training.losses.bradley_terry import bradley_terry
from dapflow.tasks.training.optimizer.optimizer import MasterAdamW
from dapflow.tasks.training.settings import training_of


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A pair, chosen first: the margin its rating asks for, and the probability that chosen is the
    better one.
    """

    group: Group
    margin: float = 0.0
    certain: float = 1.0


def tune(
    base: Scorer,
    pairs: Sequence[Labelled],
    settings: RewardModel,
    seed: int,
    checkpoint_dir: Path | None = None,
    on_pairs: Callable[[int], None] | None = None,
) -> Scorer:
    """Train a copy of the backbone together with its head by the Bradley-Terry loss, in fp32.

    Started again after a kill with the same arguments, it goes on from the newest whole checkpoint,
    to the same weights to the bit.
    """
    model = trainable(
        copy.deepcopy(base.backbone.model).float(), settings.parameters, settings.lora_rank, seed
    )
    head = torch.nn.Parameter(base.head.weight.float().to(model.device))
    training, features = training_of(settings), pick_features(model)
    optimizer = MasterAdamW(
        torch.nn.ModuleDict({"model": model, "head": torch.nn.ParameterList([head])}), training
    )
    batches = [batch for _, batch in epochs(len(pairs), settings.batch_size, settings.epochs, seed)]
    done, saved = _resume(checkpoint_dir, optimizer), time.monotonic()
    for step, batch in list(enumerate(batches))[done:]:
        batched = [pairs[index] for index in batch]
        for part in microbatches([pair.group for pair in batched], training.tokens_per_microbatch):
            labelled = [batched[index] for index in part]
            scores = features(model, [pair.group for pair in labelled], base.layers) @ head
            chosen, rejected = scores.view(-1, 2).unbind(dim=1)
            margin, certain = scores.new_tensor(
                [(pair.margin, pair.certain) for pair in labelled]
            ).unbind(dim=1)
            (bradley_terry(chosen, rejected, margin, certain).sum() / len(batched)).backward()
        optimizer.step(training.learning_rate_at(step, len(batches)))
        late = time.monotonic() - saved > 60 * training.checkpoint_every_minutes
        if checkpoint_dir is not None and (
            late or (step + 1) % training.checkpoint_every_steps == 0
        ):
            checkpoints.save(checkpoint_dir, step + 1, optimizer.state(), {})
            saved = time.monotonic()
        if on_pairs is not None:
            on_pairs(len(batch))
    backbone = Backbone(model=model.eval(), tokenizer=base.backbone.tokenizer)
    return Scorer(backbone, Head(weight=head.detach().cpu().double(), bias=0.0), base.layers)


def _resume(folder: Path | None, optimizer: MasterAdamW) -> int:
    """How many steps of an earlier start are done, their state taken up."""
    checkpoint = None if folder is None else checkpoints.load(folder)
    if checkpoint is None:
        return 0
    tensors, state = checkpoint
    optimizer.load(tensors)
    return int(state["step"])


def save_backbone(directory: Path, backbone: Backbone, parameters: str) -> None:
    """Write what was trained of the backbone beside the head."""
    if parameters == "lora":
        from peft import get_peft_model_state_dict

        save_file(
            {
                name: tensor.contiguous()
                for name, tensor in get_peft_model_state_dict(backbone.model).items()
            },
            directory / ADAPTER_FILE,
        )
    elif parameters == "full":
        decoder = backbone.model.get_decoder()
        save_file(
            {name: tensor.contiguous() for name, tensor in decoder.state_dict().items()},
            directory / WEIGHTS_FILE,
        )

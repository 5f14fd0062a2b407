"""The value model of actor-critic methods: a linear head on a transformer of its own, and how it
learns. Test: pytest tests/tasks/training/rounds/test_learner.py

A model of its own, as in InstructGPT (arXiv 2203.02155, appendix C) and Llama 2, not a head on the
policy: the two losses do not pull at one set of weights. It starts with the policy's weights and a
head of zeros. `training.parameters` says what of it is trained, as of the policy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.tasks.models.packed.batches import Group, microbatches
from dapflow.tasks.models.packed.logps import (
    attention_of,
    packed_hidden,
    packed_token_logps,
    pick_scorer,
)
from dapflow.tasks.models.parameters import checkpointed, trainable
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.training.losses.needs import ActorCritic
from dapflow.tasks.training.optimizer.optimizer import pick_optimizer
from dapflow.tasks.training.optimizer_step import Moment, check_finite
from dapflow.tasks.training.settings import Training


class Values(torch.nn.Module):
    """V of the state before each completion token."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(
            backbone.config.get_text_config().hidden_size, 1, device=backbone.device
        )
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.scorer = pick_scorer(backbone)

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """fp32 [tokens], answer after answer, group after group."""
        packed = self.scorer is packed_token_logps
        hidden = (
            packed_hidden(self.backbone, groups)[0]
            if packed
            else torch.cat([self._alone(group) for group in groups])
        )
        return self.head(hidden.float())[:, 0]

    def _alone(self, group: Group) -> Tensor:
        """Hidden states of a group's answers, each by itself: of models that cannot be packed."""
        rows = [
            torch.tensor([group.prompt + answer[:-1]], device=self.backbone.device)
            for answer in group.answers
        ]
        states = [
            self.backbone.get_decoder()(input_ids=row, use_cache=False).last_hidden_state[0]
            for row in rows
        ]
        return torch.cat([hidden[len(group.prompt) - 1 :] for hidden in states])


class Critic:
    """A value model and its optimiser. model: the policy's weights, its own to change."""

    def __init__(self, model: PreTrainedModel, training: Training, seed: int) -> None:
        self._training = training
        self._values = Values(_backbone(model, training, derive_seed(seed, "critic")))
        self.optimizer = pick_optimizer(self._values, training, derive_seed(seed, "critic"))

    @torch.no_grad()
    def values(self, group: Group) -> Tensor:
        """V before each token of the group's answers, fp32 [tokens]."""
        return self._values([group])

    def step(self, batch: Sequence[Group], rule: ActorCritic, moment: Moment) -> float:
        """One optimiser step on the rule's loss of values, given the groups' experience; the loss
        before it, mean over tokens.
        """
        tokens, total = sum(len(answer) for group in batch for answer in group.answers), 0.0
        model = self._values.backbone
        with (
            attention_of(self._values.scorer, model),
            checkpointed(model, self._training.gradient_checkpointing),
        ):
            for part in microbatches(batch, self._training.tokens_per_microbatch):
                groups = [batch[index] for index in part]
                pasts = [group.experience for group in groups if group.experience is not None]
                old = torch.cat([past.values for past in pasts])
                returns = torch.cat([past.returns for past in pasts])
                loss = rule.value_loss(self._values(groups), old, returns).sum() / tokens
                check_finite(loss.item(), groups, moment.step)
                loss.backward()
                total += loss.item()
        check_finite(self.optimizer.step(moment.learning_rate), batch, moment.step)
        return total


def _backbone(model: PreTrainedModel, training: Training, seed: int) -> PreTrainedModel:
    """The model with gradients for what is trained of it; never for an output head, which nothing
    asks for a value.
    """
    if training.parameters == "head":  # of a value model: its own
        return model.eval().requires_grad_(False)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is not None and outputs.weight is not inputs.weight:
        outputs.requires_grad_(False)
    return trainable(model, training.parameters, training.lora_rank, seed)


def explained_variance(values: Tensor, returns: Tensor) -> float | None:
    """1 - Var(returns - values) / Var(returns): 1 for a value model that knows them, 0 for a
    constant; None where they do not vary.
    """
    spread = returns.var(unbiased=False)
    return None if spread == 0 else (1 - (returns - values).var(unbiased=False) / spread).item()

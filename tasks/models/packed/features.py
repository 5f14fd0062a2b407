"""What a reward model sees of an answer: the mean hidden state of its tokens, with the prompt
computed once for all its answers.

Test: pytest tests/tasks/training/reward/test_reward.py
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.storage import UserError
from dapflow.tasks.models.chat import render
from dapflow.tasks.models.packed.attention import shared_prefix
from dapflow.tasks.models.packed.batches import Group, microbatches, pack
from dapflow.tasks.models.packed.logps import packed_token_logps, pick_scorer

Features = Callable[[PreTrainedModel, Sequence[Group], int], Tensor]
"""(model, groups, layers) -> the features of every answer, group after group, fp32 [answers,
width].
"""


def text_group(
    tokenizer: Any, prompt: str, answers: Sequence[str], row_id: str, earlier: Sequence[str] = ()
) -> Group:
    """A prompt, after the turns before it, and its answers as token ids. Every answer gets an
    end-of-sequence token, which is not part of its features."""
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    ended = tuple((*answer, tokenizer.eos_token_id) for answer in ids)
    return Group(
        prompt=tuple(render(tokenizer, prompt, earlier=earlier)), answers=ended, row_ids=(row_id,)
    )


def packed_features(model: PreTrainedModel, groups: Sequence[Group], layers: int) -> Tensor:
    """Features from one row without padding, after `layers` layers (0: after all of them and the
    final norm).
    """
    packed = pack(groups, model.device)
    inputs = {
        "input_ids": packed.input_ids,
        "position_ids": packed.position_ids,
        "segments": packed.segments,
        "masks": {},
    }
    with shared_prefix(model):
        hidden = _hidden(model, layers, inputs)[0]
    return torch.stack(
        [_mean(hidden, begin, end) for segment in packed.segments for begin, end in segment.answers]
    )


def padded_features(model: PreTrainedModel, groups: Sequence[Group], layers: int) -> Tensor:
    """Features from the model's own forward, an answer at a time: for architectures that cannot be
    packed.
    """
    found: list[Tensor] = []
    for group in groups:
        for answer in group.answers:
            ids = torch.tensor([group.prompt + answer[:-1]], device=model.device)
            found.append(
                _mean(
                    _hidden(model, layers, {"input_ids": ids})[0], len(group.prompt), ids.shape[1]
                )
            )
    return torch.stack(found)


def pick_features(model: PreTrainedModel) -> Features:
    """`packed_features` where packing is exact for this architecture, else `padded_features`, with
    a warning.
    """
    return packed_features if pick_scorer(model) is packed_token_logps else padded_features


@torch.no_grad()
def answer_features(
    model: PreTrainedModel,
    groups: Sequence[Group],
    layers: int,
    *,
    max_tokens: int = 2048,
    on_groups: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """The features of each group's answers, fp32 [answers, width] on the CPU, in batches of at most
    max_tokens tokens.
    """
    features = pick_features(model)
    found: dict[int, Tensor] = {}
    for batch in microbatches(groups, max_tokens):
        chosen = [groups[index] for index in batch]
        sizes = [len(group.answers) for group in chosen]
        found.update(zip(batch, features(model, chosen, layers).cpu().split(sizes), strict=True))
        if on_groups:
            on_groups(len(batch))
    return [found[index] for index in range(len(groups))]


class _EnoughError(Exception):
    """Carries the hidden state out of a forward pass whose remaining layers nobody needs."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("enough layers")
        self.hidden = hidden


def _hidden(model: PreTrainedModel, layers: int, inputs: dict[str, Any]) -> Tensor:
    decoder = model.get_decoder()
    if layers == 0:
        return decoder(**inputs, use_cache=False).last_hidden_state

    def stop(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        raise _EnoughError(output[0] if isinstance(output, tuple) else output)

    hook = _layer(model, layers).register_forward_hook(stop)
    try:
        decoder(**inputs, use_cache=False)
    except _EnoughError as enough:
        return enough.hidden
    finally:
        hook.remove()
    raise AssertionError("the forward pass ended before the layer was reached")


def _layer(model: PreTrainedModel, layers: int) -> torch.nn.Module:
    count = model.config.get_text_config().num_hidden_layers
    if not 0 < layers <= count:
        raise UserError(
            f"The reward model is to read layer {layers}, but its backbone has {count}: set "
            f"`layers` to 1 .. {count}, or 0 for all."
        )
    stacks = [
        module
        for module in model.get_decoder().modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    return stacks[0][layers - 1]


def _mean(hidden: Tensor, begin: int, end: int) -> Tensor:
    assert begin < end, "an answer without tokens has no features"
    return hidden[begin:end].float().mean(dim=0)

"""Attention over a packed row: each prompt attends to itself, each answer to its prompt and itself.

Registered with transformers' AttentionInterface, so it serves every architecture that uses that
interface. No tokens are padded. A CPU computes no score between two groups, or two answers; a GPU,
to which a call costs more than a score, masks them in one call for the row, as long as the row is
not long. Test: pytest tests/tasks/models/packed/test_logps.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from dapflow.tasks.models.packed.batches import Segments

NAME = "dapflow_shared_prefix"
_WHOLE_ROW = (
    4096  # tokens: the mask of a longer row, and the scores that it hides, cost more than the calls
)

Parts = tuple[Segments, ...]
Masks = dict[tuple[int, int, int | None, int], Tensor]
"""By queries, keys, window and how many heads share keys; of a whole row, 0 queries."""


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Parts,
    masks: Masks,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """query [1, heads, L, dim], key and value [1, key-value heads, L, dim] -> [1, L, heads, dim];
    `masks` is shared between layers.
    """
    assert attention_mask is None
    repeats = query.shape[1] // key.shape[1]

    def attend(query: Tensor, key: Tensor, value: Tensor, whole: bool = False) -> Tensor:
        shape = (0 if whole else query.shape[2], key.shape[2], sliding_window, repeats)
        if shape not in masks:
            seen = _seen_in_row(segments, *shape[1:3]) if whole else _seen_causally(*shape[:3])
            hidden = torch.zeros(seen.shape, dtype=query.dtype).masked_fill_(~seen, -torch.inf)
            masks[shape] = hidden.to(query.device).repeat(repeats, 1)
        return _attention(query, key, value, masks[shape], scaling, softcap)

    attended = (
        attend(query, key, value, whole=True)
        if _in_one_call(query)
        else _by_segment(attend, query, key, value, segments)
    )
    return attended.transpose(1, 2), None


def _in_one_call(query: Tensor) -> bool:
    return query.device.type != "cpu" and query.shape[2] <= _WHOLE_ROW


def _by_segment(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Parts,
) -> Tensor:
    """A call for each prompt and each answer, [1, heads, L, dim]."""
    sizes = [
        end - begin
        for group in segments
        for begin, end in ((group.start, group.prompt_end), *group.answers)
    ]
    # One split, not a slice for each segment: the gradient of a slice is a whole row of zeros.
    parts = zip(
        query.split(sizes, dim=2), key.split(sizes, dim=2), value.split(sizes, dim=2), strict=True
    )
    outputs = list[Tensor]()
    for group in segments:
        prompt_query, prompt_key, prompt_value = next(parts)
        outputs.append(attend(prompt_query, prompt_key, prompt_value))
        for own_query, own_key, own_value in islice(parts, len(group.ends)):
            if own_query.shape[2]:
                outputs.append(
                    attend(
                        own_query,
                        torch.cat((prompt_key, own_key), dim=2),
                        torch.cat((prompt_value, own_value), dim=2),
                    )
                )
    return torch.cat(outputs, dim=2)


def _seen_in_row(segments: Parts, length: int, window: int | None) -> Tensor:
    """[length, length], where a token of the row may look, back to `window` positions."""
    position, group, answer = torch.zeros(3, length, dtype=torch.long)
    for number, one in enumerate(segments):
        group[one.start : one.ends[-1]] = number
        for place, (begin, end) in enumerate([(one.start, one.prompt_end), *one.answers]):
            answer[begin:end] = place
            first = one.prompt_end - one.start if place else 0
            position[begin:end] = torch.arange(first, first + end - begin)
    distance = position[:, None] - position
    seen = (distance >= 0) & (distance < (window or length))
    return seen & (group[:, None] == group) & ((answer == 0) | (answer[:, None] == answer))


def _seen_causally(queries: int, keys: int, window: int | None) -> Tensor:
    """[queries, keys], where the last `queries` of `keys` positions may look, back to `window` of
    them.
    """
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    return (distance >= 0) & (distance < (window or keys))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float | None,
    softcap: float | None,
) -> Tensor:
    """mask: [queries, keys] once for each of the heads that share keys, one below the other. Their
    queries are one row, so that no key is copied for any of them."""
    shared = query.reshape(1, key.shape[1], -1, query.shape[-1])
    if softcap is None:
        return scaled_dot_product_attention(
            shared, key, value, attn_mask=mask, scale=scale
        ).reshape(query.shape)
    scores = shared @ key.mT * (scale or query.shape[-1] ** -0.5)
    weights = (softcap * torch.tanh(scores / softcap) + mask).softmax(
        dim=-1, dtype=torch.float32
    )  # Gemma 2
    return (weights.to(value.dtype) @ value).reshape(query.shape)


AttentionInterface.register(NAME, shared_prefix_attention)


@contextmanager
def shared_prefix(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts the model's attention is the packed row's, and its forward needs `segments=`
    and `masks=`.
    """
    before = model.config._attn_implementation  # the public name has a setter only
    assert before is not None
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)

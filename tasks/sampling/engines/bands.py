"""Attention for one new token per row where rows differ in length: rows of like length attend
together, over the slots they own.

A row of 40 tokens that decodes beside one of 600 would otherwise read 600 slots of padding at every
token and layer. Registered with transformers' AttentionInterface, for the architectures that use
it. Test: pytest tests/tasks/sampling/engines/test_bands.py
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "dapflow_bands"
CALL_SLOTS = 256  # one more call costs about as much as so many more slots to read

Band = tuple[slice, int]  # rows that follow each other, and the first slot that one of them owns


def bands_of(starts: Sequence[int], end: int) -> list[Band]:
    """Row i owns the slots [starts[i], end) -> the bands that together read the fewest slots, a
    call counted as CALL_SLOTS of them.
    """
    best: list[tuple[int, int]] = [
        (0, 0)
    ]  # of the first i rows: the least cost, and where the last band begins
    for last in range(1, len(starts) + 1):
        options, first = list[tuple[int, int]](), end
        for begin in range(last - 1, -1, -1):
            first = min(first, starts[begin])
            options.append((best[begin][0] + CALL_SLOTS + (last - begin) * (end - first), begin))
        best.append(min(options))
    bands, last = list[Band](), len(starts)
    while last:
        begin = best[last][1]
        bands.append((slice(begin, last), min(starts[begin:last])))
        last = begin
    return bands[::-1]


def banded_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    bands: Sequence[Band] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """query [rows, heads, 1, dim], key and value [rows, key-value heads, slots, dim] -> [rows, 1,
    heads, dim].

    bands: slots counted from the first one in use. Without them, or without a mask, the plain
    attention of transformers.
    """
    if bands is None or attention_mask is None or attention_mask.shape[0] != query.shape[0]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    parts = [
        sdpa_attention_forward(
            module,
            query[rows],
            key[rows, :, first:],
            value[rows, :, first:],
            attention_mask[rows, ..., first:],
            **options,
        )[0]
        for rows, first in bands
    ]
    return torch.cat(parts), None


AttentionInterface.register(NAME, banded_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def banded(model: Any) -> Iterator[bool]:
    """While it lasts the model's forward takes `bands=`. Gives whether it does: not where an
    architecture has an attention of its own, and not on a GPU, to which one more call costs more
    than padding."""
    before = model.config._attn_implementation
    if model.device.type != "cpu" or before != "sdpa" or not model._supports_attention_backend:
        yield False
        return
    model.set_attn_implementation(NAME)
    try:
        yield True
    finally:
        model.set_attn_implementation(before)

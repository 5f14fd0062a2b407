"""The keys and values of the rows that are being decoded: written in place, read without copies. Used by engines/transformers.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel

from storage import UserError

_NAME = "dapflow_decode"


class Slots(Cache):
    """A key-value cache of `rows` slots of `capacity` tokens; the first `active` ones take part in a step, each with its own length."""

    def __init__(self, model: PreTrainedModel, rows: int, capacity: int) -> None:
        self.rows, self.capacity, self.active = rows, capacity, 0
        self.layers = []  # what the base class keeps is kept here, by slot
        self._model = model
        self._lengths = torch.zeros(rows, dtype=torch.long, device=model.device)  # tokens in the cache, by slot
        self._host_lengths = [0] * rows
        self._keys: dict[int, Tensor] = {}  # by layer: [rows, key-value heads, capacity, width]
        self._values: dict[int, Tensor] = {}
        self._view = 0

    def fill(self, first: int, count: int, cache: DynamicCache | None, place: int, length: int) -> None:
        """Copy row `place` of a prefilled cache, `length` tokens of it, into `count` slots from `first` on."""
        for layer, filled in enumerate(cache.layers if cache is not None else ()):
            assert filled.keys is not None and filled.values is not None
            for store, source in ((self._keys, filled.keys), (self._values, filled.values)):
                if layer not in store:
                    store[layer] = source.new_zeros(self.rows, source.shape[1], self.capacity, source.shape[3])
                store[layer][first : first + count, :, :length] = source[place, :, :length]
        self._set_lengths(first, count, length)
        self.active = first + count

    def move(self, source: int, target: int) -> None:
        """The row in slot `source`, the last active one, takes the place of the one in `target`."""
        assert source == self.active - 1
        if source != target:
            length = self._host_lengths[source]
            for store in (self._keys, self._values):
                for tensor in store.values():
                    tensor[target, :, :length] = tensor[source, :, :length]
            self._set_lengths(target, 1, length)
        self.active -= 1

    def forward(self, ids: Tensor) -> Tensor:
        """One token for each active row, [active, 1]; returns the logits of the next, fp32 [active, vocabulary]."""
        lengths = self._lengths[: self.active]
        self._view = max(self._host_lengths[: self.active]) + 1
        output = self._model(
            input_ids=ids, position_ids=lengths[:, None], past_key_values=self, use_cache=True, row_lengths=lengths, decode_masks={}
        )
        self._lengths[: self.active] += 1
        self._host_lengths[: self.active] = [length + 1 for length in self._host_lengths[: self.active]]
        return output.logits[:, -1].float()

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by the model's attention: put the new token of each row in its place, and give back what is there."""
        rows = torch.arange(self.active, device=key_states.device)
        for store, new in ((self._keys, key_states), (self._values, value_states)):
            if layer_idx not in store:
                store[layer_idx] = new.new_zeros(self.rows, new.shape[1], self.capacity, new.shape[3])
            store[layer_idx][rows, :, self._lengths[: self.active]] = new[:, :, 0]
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        return keys[: self.active, :, : self._view], values[: self.active, :, : self._view]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The model asks how many tokens came before; the rows' own positions are passed beside it."""
        return self._view - 1

    def _set_lengths(self, first: int, count: int, length: int) -> None:
        self._lengths[first : first + count] = length
        self._host_lengths[first : first + count] = [length] * count


def decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: Tensor,
    decode_masks: dict[int | None, Tensor],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """query [rows, heads, 1, width], key and value [rows, key-value heads, view, width] -> [rows, 1, heads, width].

    The heads that share keys are laid out as query positions, so that keys and values are never repeated.
    """
    assert query.shape[2] == 1 and attention_mask is None
    if sliding_window not in decode_masks:
        decode_masks[sliding_window] = _mask(row_lengths, key.shape[2], sliding_window, query.dtype)
    mask = decode_masks[sliding_window]
    rows, heads, _one, width = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    if softcap is None:
        output = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    else:  # Gemma 2
        scores = grouped @ key.mT * (scaling if scaling is not None else width**-0.5)
        output = (softcap * torch.tanh(scores / softcap) + mask).softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    return output.reshape(rows, 1, heads, width), None


def _mask(lengths: Tensor, view: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """[rows, 1, 1, view]: 0 where a row's new token, at place `length`, may look, else -inf."""
    place = torch.arange(view, device=lengths.device)
    seen = (place <= lengths[:, None]) & (place > lengths[:, None] - (window or view + 1))
    return torch.zeros(seen.shape, dtype=dtype, device=lengths.device).masked_fill_(~seen, -torch.inf)[:, None, None]


AttentionInterface.register(_NAME, decode_attention)


@contextmanager
def decoding(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the model's attention is `decode_attention`. Raises UserError where the architecture has one of its own."""
    before = model.config._attn_implementation  # the public name has a setter only
    try:
        model.set_attn_implementation(_NAME)
    except ValueError as error:
        raise UserError(f"{type(model).__name__} has an attention of its own, which this engine cannot batch: serve it with vLLM.") from error
    try:
        yield
    finally:
        model.set_attn_implementation(before)

"""Keys and values of the rows that decode together: written in place, never concatenated.

All rows share a clock. At each step every row writes at slot `clock`, and a row of n tokens owns
the slots [clock - n, clock), so a row may join or leave at any time, and to the model the rows look
like an ordinary batch padded on the left. Test: pytest
tests/tasks/sampling/engines/test_transformers.py
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines.bands import Band, bands_of

_SPARE_SLOTS = 64  # the clock is turned back once in as many steps


class Memory:
    """What one cache after another is laid out in: new memory costs more to touch for the first
    time than to use.
    """

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def __call__(self, like: Tensor, place: int, shape: Sequence[int]) -> Tensor:
        """Finite numbers of this shape, dtype and device: a masked slot may hold what another row
        left there, but no NaN.
        """
        size = math.prod(shape)
        if place == len(self._held):
            self._held.append(like.new_zeros(size))
        elif self._held[place].numel() < size:
            self._held[place] = like.new_zeros(size)
        return self._held[place][:size].view(shape)


class RowCache(Cache):
    """A cache of transformers for single-token steps of up to `rows` rows."""

    def __init__(self, like: Cache, rows: int, longest: int, memory: Memory) -> None:
        """like: the cache of a prefill, for its shapes. longest: the most tokens a row can come to.
        memory: no one else's for now.
        """
        self.starts: list[int] = []  # of each active row: its first slot
        self.clock = 0
        self._owned: list[int] = []
        self._bands: list[Band] = []
        self.slots = longest + _SPARE_SLOTS
        super().__init__(
            layers=[
                _RowLayer(self, layer, rows, memory, place)
                for place, layer in enumerate(like.layers)
            ]
        )

    @property
    def begin(self) -> int:
        """The first slot that an active row owns."""
        return min(self.starts, default=self.clock)

    def join(self, prefill: Cache, prompts: Sequence[int], lengths: Sequence[int]) -> None:
        """Add rows: row i gets the last lengths[i] positions of entry prompts[i] of a left-padded
        prefill.
        """
        width = max(lengths)
        if not self.starts:
            self.clock = width
        assert width <= self.clock, "prompts must come longest first"
        first, last = len(self.starts), len(self.starts) + len(prompts)
        written = slice(self.clock - width, self.clock)
        for mine, theirs in zip(_states(self), _states(prefill), strict=True):
            mine[first:last, :, written] = theirs[:, :, -width:].index_select(
                0, torch.tensor(prompts, device=theirs.device)
            )
        self.starts += [self.clock - length for length in lengths]

    def keep(self, rows: Sequence[int]) -> None:
        """Rows 0 .. len(rows) - 1 become what `rows` were. Only those that change their place are
        copied.
        """
        owned = slice(self.begin, self.clock)
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            for state in _states(self):
                to, row = torch.tensor(moved, device=state.device).unbind(1)
                state[to, :, owned] = state[row, :, owned]
        self.starts = [self.starts[row] for row in rows]

    def tick(self) -> None:
        """Make room for one more token of every row; call it before each step."""
        if self.clock == self.slots:
            begin, rows = self.begin, len(self.starts)
            for state in _states(self):
                state[:rows, :, : self.clock - begin] = state[:rows, :, begin:].clone()
            self.starts = [start - begin for start in self.starts]
            self.clock -= begin
        self.clock += 1

    def mask(self) -> Tensor:
        """[rows, slots in use], 1 where a row owns the slot; the token that is about to be written
        counts.
        """
        starts = torch.tensor(self.starts)[:, None]
        return (torch.arange(self.begin, self.clock) >= starts).long().to(_states(self)[0].device)

    def bands(self) -> list[Band]:
        """Which rows attend together, and from which of the slots in use. Worked out when rows have
        come or gone.
        """
        owned = [start - self.begin for start in self.starts]
        if owned != self._owned:
            self._owned, self._bands = owned, bands_of(owned, self.clock - self.begin)
        return self._bands

    def positions(self) -> Tensor:
        """[rows, 1], the position of the token that is about to be written."""
        return (self.clock - 1 - torch.tensor(self.starts)[:, None]).to(_states(self)[0].device)


class _RowLayer(CacheLayerMixin):
    """One layer's keys and values, [rows, key-value heads, slots, dim]."""

    is_sliding = False  # everything is kept; the model's mask says how far a layer looks back

    def __init__(self, owner: RowCache, like: Any, rows: int, memory: Memory, place: int) -> None:
        super().__init__()
        self._owner, self._memory, self._place = owner, memory, place
        self.lazy_initialization(
            like.keys[:1].expand(rows, -1, -1, -1), like.values[:1].expand(rows, -1, -1, -1)
        )

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            self._memory(
                states,
                2 * self._place + second,
                (*states.shape[:2], self._owner.slots, states.shape[-1]),
            )
            for second, states in enumerate((key_states, value_states))
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one token per row at the clock's slot; views of the slots in use."""
        owner, rows = self._owner, len(self._owner.starts)
        assert self.keys is not None
        assert self.values is not None
        self.keys[:rows, :, owner.clock - 1] = key_states[:, :, 0]
        self.values[:rows, :, owner.clock - 1] = value_states[:, :, 0]
        used = slice(owner.begin, owner.clock)
        return self.keys[:rows, :, used], self.values[:rows, :, used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.clock - self._owner.begin, 0

    def get_seq_length(self) -> int:
        return self._owner.clock - self._owner.begin - 1

    def get_max_length(self) -> int:
        return self._owner.slots


def check_cacheable(model: Any) -> None:
    """Raise UserError for models that keep something else than keys and values between tokens."""
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if model._is_stateful or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        raise UserError(
            f"{type(model).__name__} keeps a recurrent or compressed state, which this engine "
            "cannot sample from: "
            "take a model whose layers all use attention (Llama, Qwen, Gemma, GPT ...)."
        )


def rows_that_fit(like: Cache, longest: int, max_bytes: int) -> int:
    """How many rows of up to `longest` tokens a RowCache of that many bytes can hold, at least one.
    like: as in RowCache.
    """
    bytes_per_slot = sum(
        state.shape[1] * state.shape[-1] * state.element_size() for state in _states(like)
    )
    return max(1, max_bytes // (bytes_per_slot * (longest + _SPARE_SLOTS)))


def _states(cache: Any) -> list[Tensor]:
    """Keys and values of every layer, each [rows, key-value heads, slots, dim]."""
    return [state for layer in cache.layers for state in (layer.keys, layer.values)]

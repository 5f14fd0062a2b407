"""The engine that needs no server: samples from a model in this process, many rows at once.

    for completion in TransformersEngine(loaded).generate(requests, sampling): ...
Each prompt is computed once for all its completions; a row that ends leaves the batch at once, and
the next one takes its place. Same requests and options, same rows to the bit. Test: pytest
tests/tasks/sampling/engines/test_transformers.py
"""

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.names import Loaded, end_ids
from dapflow.tasks.sampling.engines.bands import Band, banded
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.drawn import Drawn
from dapflow.tasks.sampling.engines.packed import PackedLinears
from dapflow.tasks.sampling.engines.rows import Memory, RowCache, check_cacheable, rows_that_fit
from dapflow.tasks.sampling.engines.stops import Stops

_PREFILL_TOKENS = 512  # prompts are computed together up to as many tokens,
_LEAST_WIDTH = 7 / 8  # and as long as the shortest is not much shorter than the longest


class TransformersEngine:
    """An Engine over a causal language model of transformers. Raises UserError for architectures
    without a key-value cache.
    """

    rows_per_chunk, together = (
        128,
        False,
    )  # part of what decides the numbers of a batch, so constants

    def __init__(
        self, loaded: Loaded, *, max_rows: int = 64, max_cache_bytes: int = 4 << 30
    ) -> None:
        """max_rows: how many decode together; fewer where their keys and values would take more
        than max_cache_bytes.
        """
        check_cacheable(loaded.model)
        self._loaded = loaded
        self._packed = PackedLinears(loaded.model, rows=64)  # a constant: it decides the last bits
        self._max_rows = max_rows
        self._max_cache_bytes = max_cache_bytes
        self._memory: Memory | None = None

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Completion]:
        """Every completion of every request, as they finish. A prompt must leave room for a token
        in the model's context.
        """
        requests = [request for request in requests if request.seeds]
        if not requests:
            return
        memory, self._memory = (
            self._memory or Memory(),
            None,
        )  # two generators at once have each their own
        with self._packed.used(), banded(self._loaded.model) as in_bands:
            batch = _Batch(
                self._loaded,
                requests,
                sampling,
                self._max_rows,
                self._max_cache_bytes,
                in_bands,
                memory,
            )
            while batch.waiting or batch.rows:
                sampled = batch.join() or batch.step()
                if on_tokens:
                    on_tokens(sampled)
                yield from batch.leave()
        self._memory = memory

    def report(self) -> str:
        return ""


@dataclass(frozen=True, kw_only=True)
class _Prefill:
    """Some prompts' keys and values, padded on the left, and the logits of what follows each,
    [prompts, vocabulary].
    """

    cache: Cache
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A completion to be made of entry `prompt` of a prefill."""

    request: Request
    sample: int
    prefill: _Prefill
    prompt: int


class _Batch:
    """The rows that decode together. Row i of the cache and of every tensor in the state belongs to
    rows[i].
    """

    def __init__(
        self,
        loaded: Loaded,
        requests: Sequence[Request],
        sampling: Sampling,
        max_rows: int,
        max_cache_bytes: int,
        in_bands: bool,
        memory: Memory,
    ) -> None:
        self._model: Any = loaded.model
        self._in_bands = in_bands
        self._tokenizer = loaded.tokenizer
        self._accepted = inspect.signature(self._model.forward).parameters
        self._ends = torch.tensor(
            sorted(end_ids(loaded)), dtype=torch.long, device=self._model.device
        )
        self._sampling = sampling
        self._context = context_length(self._model)
        # Longest first: rows of like length decode together, and no prompt is longer than what the
        # cache's clock has counted.
        self._requests = deque(sorted(requests, key=lambda request: -len(request.prompt_token_ids)))
        longest = len(self._requests[0].prompt_token_ids)
        assert 0 < len(self._requests[-1].prompt_token_ids) <= longest < self._context, (
            "an empty prompt, or one that fills the context"
        )
        self._longest = min(longest + sampling.max_tokens, self._context)
        self._ready = deque[_Row]()
        self._prefill()
        first = self._ready[0].prefill.cache
        wanted = min(max_rows, sum(len(request.seeds) for request in requests))
        self._max_rows = min(wanted, rows_that_fit(first, self._longest, max_cache_bytes))
        self._cache = RowCache(first, self._max_rows, self._longest, memory)
        counted = (
            loaded.model.config.get_text_config().vocab_size
            if sampling.repetition_penalty != 1
            else 0
        )
        self._state = Drawn(self._max_rows, sampling.max_tokens, counted, self._model.device)
        self._stops = Stops(self._tokenizer, sampling.stop)
        self.rows: list[_Row] = []

    @property
    def waiting(self) -> bool:
        """Whether some completions have not been begun."""
        return bool(self._ready or self._requests)

    @torch.inference_mode()
    def join(self) -> int:
        """Fill the free places with waiting rows and draw their first tokens. Returns how many
        joined.
        """
        first = len(self.rows)
        while self.waiting and len(self.rows) < self._max_rows:
            if not self._ready:
                self._prefill()
            prefill = self._ready[0].prefill
            joining = list[_Row]()
            while (
                self._ready
                and self._ready[0].prefill is prefill
                and len(self.rows) + len(joining) < self._max_rows
            ):
                joining.append(self._ready.popleft())
            self._admit(prefill, joining)
        return len(self.rows) - first

    @torch.inference_mode()
    def step(self) -> int:
        """Draw one more token for every row. Returns how many were drawn."""
        count, cache = len(self.rows), self._cache
        cache.tick()
        bands = cache.bands() if self._in_bands else None
        logits = self._forward(
            self._state.last[:count, None], cache.mask(), cache.positions(), cache, bands
        )
        self._state.draw(slice(0, count), logits, self._sampling)
        return count

    @torch.inference_mode()
    def leave(self) -> list[Completion]:
        """Take out the rows that have ended; others move into their places."""
        count, state = len(self.rows), self._state
        stopped = torch.isin(state.last[:count], self._ends)
        for row in range(count if self._stops else 0):
            stopped[row] |= self._stops.reached(state.tail(row, self._stops.tail))
        ended = set(
            (stopped | (state.drawn[:count] == state.limits[:count])).nonzero()[:, 0].tolist()
        )
        if not ended:
            return []
        completions = [self._completion(row, bool(stopped[row])) for row in sorted(ended)]
        kept = _fill_holes(count, ended)
        self._cache.keep(kept)
        state.keep(kept)
        self.rows = [self.rows[row] for row in kept]
        return completions

    def _prefill(self) -> None:
        """Compute the next prompts, together, and make their rows ready."""
        requests = [self._requests.popleft()]
        width = len(requests[0].prompt_token_ids)
        while self._requests and width * (len(requests) + 1) <= _PREFILL_TOKENS:
            if len(self._requests[0].prompt_token_ids) < _LEAST_WIDTH * width:
                break
            requests.append(self._requests.popleft())
        padding = [width - len(request.prompt_token_ids) for request in requests]
        ids = torch.tensor(
            [
                [0] * pad + list(request.prompt_token_ids)
                for pad, request in zip(padding, requests, strict=True)
            ]
        )
        mask = (torch.arange(width) >= torch.tensor(padding)[:, None]).long()
        cache = DynamicCache()
        device = self._model.device
        with torch.inference_mode():
            logits = self._forward(
                ids.to(device),
                mask.to(device),
                (mask.cumsum(dim=-1) - 1).clamp(min=0).to(device),
                cache,
            )
        prefill = _Prefill(cache=cache, logits=logits)
        for prompt, request in enumerate(requests):
            rows = (
                _Row(request=request, sample=sample, prefill=prefill, prompt=prompt)
                for sample in range(len(request.seeds))
            )
            self._ready.extend(rows)

    def _forward(
        self,
        input_ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Cache,
        bands: list[Band] | None = None,
    ) -> Tensor:
        """The logits of what follows the last position, [rows, vocabulary]."""
        offered = {"position_ids": positions, "logits_to_keep": 1}
        wanted: dict[str, Any] = {
            name: value for name, value in offered.items() if name in self._accepted
        }
        if bands:
            wanted["bands"] = bands
        return self._model(
            input_ids=input_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **wanted,
        ).logits[:, -1]

    def _admit(self, prefill: _Prefill, rows: list[_Row]) -> None:
        lengths = [len(row.request.prompt_token_ids) for row in rows]
        prompts = [row.prompt for row in rows]
        self._cache.join(prefill.cache, prompts, lengths)
        joined = slice(len(self.rows), len(self.rows) + len(rows))
        limits = [min(self._sampling.max_tokens, self._context - length) for length in lengths]
        prompted = [row.request.prompt_token_ids for row in rows]
        self._state.join(joined, [row.request.seeds[row.sample] for row in rows], limits, prompted)
        self._state.draw(joined, prefill.logits[prompts], self._sampling)
        self.rows += rows

    def _completion(self, row: int, stopped: bool) -> Completion:
        token_ids, logprobs = self._state.drawn_by(row)
        text = self._tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        request = self.rows[row].request
        return Completion(
            prompt_id=request.prompt_id,
            sample=self.rows[row].sample,
            text=self._stops.cut(text),
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason="stop" if stopped else "length",
        )


def _fill_holes(count: int, ended: set[int]) -> list[int]:
    """Which row each place takes once `ended` of `count` rows are gone: the last rows fill the
    holes, all others stay.
    """
    left = count - len(ended)
    movers = [row for row in range(left, count) if row not in ended]
    return [row if row not in ended else movers.pop() for row in range(left)]

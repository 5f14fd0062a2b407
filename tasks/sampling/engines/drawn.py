"""The tokens of the rows that decode together, as they are drawn. Test: pytest
tests/tasks/sampling/engines/test_transformers.py
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.draw import draw, uniforms


class Drawn:
    """What has been drawn so far, and the random numbers for what will be."""

    def __init__(self, rows: int, max_tokens: int, counted: int, device: torch.device) -> None:
        """counted: size of the vocabulary where tokens that are there already count, else 0."""
        self._seen = (
            torch.zeros(rows, counted, dtype=torch.bool, device=device) if counted else None
        )
        self.limits, self.drawn, self.last = torch.zeros(3, rows, dtype=torch.long, device=device)
        self._tokens = torch.zeros(rows, max_tokens, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(rows, max_tokens, device=device)
        self._uniforms = torch.zeros(rows, max_tokens, dtype=torch.float64, device=device)

    def join(
        self,
        rows: slice,
        seeds: Sequence[int],
        limits: Sequence[int],
        prompts: Sequence[Sequence[int]],
    ) -> None:
        """Begin rows with these seeds and prompts, each to draw up to its limit."""
        if self._seen is not None:
            self._seen[rows] = False
            for place, prompt in zip(range(rows.start, rows.stop), prompts, strict=True):
                self._seen[place, torch.tensor(prompt, device=self._seen.device)] = True
        self.limits[rows] = torch.tensor(limits, device=self.limits.device)
        self.drawn[rows] = 0
        self._uniforms[rows] = torch.from_numpy(
            np.stack([uniforms(seed, self._uniforms.shape[1]) for seed in seeds])
        )

    def draw(self, rows: slice, logits: Tensor, sampling: Sampling) -> None:
        """Draw each row's next token from its logits [rows, vocabulary]."""
        place = self.drawn[rows, None]
        seen = None if self._seen is None else self._seen[rows]
        self.last[rows], logprobs = draw(
            logits, self._uniforms[rows].gather(1, place)[:, 0], sampling, seen
        )
        if seen is not None:
            seen.scatter_(1, self.last[rows, None], True)
        self._tokens[rows].scatter_(1, place, self.last[rows, None])
        self._logprobs[rows].scatter_(1, place, logprobs[:, None])
        self.drawn[rows] += 1

    def drawn_by(self, row: int) -> tuple[list[int], list[float]]:
        """A row's token ids and their log-probabilities."""
        count = int(self.drawn[row])
        return self._tokens[row, :count].tolist(), self._logprobs[row, :count].tolist()

    def tail(self, row: int, count: int) -> list[int]:
        """The row's last tokens."""
        drawn = int(self.drawn[row])
        return self._tokens[row, max(0, drawn - count) : drawn].tolist()

    def keep(self, rows: Sequence[int]) -> None:
        """Rows 0 .. len(rows) - 1 become what `rows` were."""
        held = (self.limits, self.drawn, self.last, self._tokens, self._logprobs, self._uniforms)
        for tensor in held if self._seen is None else (*held, self._seen):
            tensor[: len(rows)] = tensor[torch.tensor(rows, dtype=torch.long, device=tensor.device)]

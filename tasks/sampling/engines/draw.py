"""One token for each row from its logits: temperature, top-k and nucleus, by inverting the
cumulative distribution at one uniform number.

Nothing here depends on a row's neighbours. Test: pytest tests/tasks/sampling/engines/test_draw.py
"""

import numpy as np
import torch
from torch import Tensor

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines.base import Sampling

_LIKELIEST = 256  # a nucleus is looked for among as many tokens first,
_WIDEN = 8  # then among so many times more
_BLOCK = 256
_BELOW_ONE = 1 - 2.0**-40


def uniforms(seed: int, count: int) -> np.ndarray:
    """[count] numbers in [0, 1), float64. They depend on the seed only, and a longer stream begins
    like a shorter one.
    """
    raw = np.random.Philox(seed).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


def draw(
    logits: Tensor, uniform: Tensor, sampling: Sampling, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """logits [rows, vocabulary], uniform [rows] float64 -> token ids [rows], and their raw
    log-probabilities [rows] (fp32, temperature 1).

    seen: bool [rows, vocabulary], what a repetition penalty counts. Raises UserError when the
    logits are not finite.
    """
    logits = logits.float()
    peak = logits.amax(dim=-1, keepdim=True)
    if not bool(peak.isfinite().all()):
        raise UserError(
            "The policy's logits are not finite: its weights have diverged. Train it again with a "
            "lower learning rate."
        )
    weights = (logits - peak).exp_()
    log_total = weights.sum(dim=-1).log()
    scores = logits
    if (
        seen is not None
    ):  # CTRL, arXiv 1909.05858, section 4.1, and where a logit is below 0, times instead of by
        scores = logits.where(
            ~seen,
            torch.where(
                logits > 0,
                logits / sampling.repetition_penalty,
                logits * sampling.repetition_penalty,
            ),
        )
    if sampling.temperature == 0:
        tokens = scores.argmax(dim=-1)
    else:
        if sampling.temperature != 1 or seen is not None:
            weights = (
                scores.sub(scores.amax(dim=-1, keepdim=True)).div_(sampling.temperature).exp_()
            )
        if sampling.min_p:
            weights = weights.where(weights >= sampling.min_p, 0.0)  # the likeliest one's is 1
        tokens = _draw_token(weights, uniform, sampling)
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return tokens, chosen - peak[:, 0] - log_total


def _draw_token(weights: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """weights [rows, vocabulary]: probabilities up to a factor for each row."""
    if sampling.top_k or sampling.top_p < 1:
        return _draw_from_likeliest(weights, uniform, sampling)
    return _draw_from_all(weights, uniform)


def _draw_from_all(weights: Tensor, uniform: Tensor) -> Tensor:
    """Find the block of the vocabulary first, then the token in it: a float64 cumulative sum of
    everything costs ten times as much.
    """
    blocks = torch.nn.functional.pad(weights, (0, -weights.shape[1] % _BLOCK)).unflatten(
        1, (-1, _BLOCK)
    )
    totals = blocks.sum(dim=-1).double()
    block, rest = _invert(totals, uniform * totals.sum(dim=-1))
    inside = blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK))[:, 0]
    token, _ = _invert(inside.double(), rest)
    return block * _BLOCK + token


def _draw_from_likeliest(
    weights: Tensor, uniform: Tensor, sampling: Sampling, width: int = _LIKELIEST
) -> Tensor:
    """The k likeliest tokens, and of those the fewest that hold top_p of their probability (at
    least one).

    Without top_k only the `width` likeliest are sorted, and more for the rows whose nucleus may be
    larger.
    """
    width = min(sampling.top_k or width, weights.shape[1])
    likeliest, tokens = weights.topk(width, dim=-1)
    likeliest = likeliest.double()
    total = (likeliest if sampling.top_k else weights).sum(dim=-1, dtype=torch.float64)
    kept = likeliest.cumsum(dim=-1) - likeliest < sampling.top_p * total[:, None]
    nucleus = likeliest * kept
    place, _ = _invert(nucleus, uniform * nucleus.sum(dim=-1))
    drawn = tokens.gather(1, place[:, None])[:, 0]
    larger = kept[:, -1]
    if not sampling.top_k and width < weights.shape[1] and bool(larger.any()):
        drawn[larger] = _draw_from_likeliest(
            weights[larger], uniform[larger], sampling, width * _WIDEN
        )
    return drawn


def _invert(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first index whose cumulative weight exceeds the target, and what of the target is left
    there. Never an index of weight 0.
    """
    cumulative = weights.cumsum(dim=-1)
    target = torch.minimum(target, cumulative[:, -1] * _BELOW_ONE)
    index = torch.searchsorted(cumulative, target[:, None], right=True)
    rest = target - (cumulative - weights).gather(1, index)[:, 0]
    return index[:, 0], rest.clamp(min=0)

"""From logits to a token: temperature, top-k, nucleus, by inversion of the distribution function. No sort of the whole vocabulary.

Test: pytest tests/tasks/engines/test_sampler.py
"""

import numpy as np
import torch
from torch import Tensor

from tasks.engines.base import Sampling

_NUCLEUS = 256  # likeliest tokens looked at before a row's whole vocabulary is sorted


def uniforms(seed: int, count: int) -> Tensor:
    """The random numbers of a row, one per token, fp64 in [0, 1): they depend on its seed only."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(seed)).random(count))


def draw(logits: Tensor, sampling: Sampling, chance: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row and its log-prob. logits fp32 [rows, vocabulary]; chance fp64 [rows]: a uniform number each.

    Returns tokens [rows] and their log-probs at temperature 1 over the whole vocabulary, in nats, fp32 [rows].
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        tokens = _sample(logits / sampling.temperature, sampling, chance)
    picked = logits.gather(1, tokens[:, None])[:, 0]
    return tokens, picked - logits.logsumexp(dim=-1)


def _sample(logits: Tensor, sampling: Sampling, chance: Tensor) -> Tensor:
    vocabulary = logits.shape[1]
    if 0 < sampling.top_k < vocabulary:
        values, ids = logits.topk(sampling.top_k, dim=-1)
        mass = values.double().softmax(dim=-1)
        return _invert(_nucleus(mass, sampling.top_p), ids, chance)
    if sampling.top_p == 1.0:
        return _invert(logits.double().softmax(dim=-1), None, chance)
    values, ids = logits.topk(min(_NUCLEUS, vocabulary), dim=-1)
    mass = (values.double() - logits.double().logsumexp(dim=-1, keepdim=True)).exp()
    short = mass.sum(dim=-1) < sampling.top_p
    tokens = _invert(_nucleus(mass, sampling.top_p), ids, chance)
    if short.any():  # rare: a row so flat that its nucleus is wider
        whole, order = logits[short].double().softmax(dim=-1).sort(dim=-1, descending=True)
        tokens[short] = _invert(_nucleus(whole, sampling.top_p), order, chance[short])
    return tokens


def _nucleus(mass: Tensor, top_p: float) -> Tensor:
    """mass [rows, k], falling: zero for what lies beyond the smallest set that holds top_p of it."""
    before = mass.cumsum(dim=-1) - mass
    return mass.masked_fill(before >= top_p, 0.0) if top_p < 1 else mass


def _invert(mass: Tensor, ids: Tensor | None, chance: Tensor) -> Tensor:
    """The id at which the cumulated mass first exceeds chance, as a share of the whole."""
    cumulated = mass.cumsum(dim=-1)
    goal = chance[:, None] * cumulated[:, -1:]
    place = (cumulated <= goal).sum(dim=-1, keepdim=True).clamp_(max=mass.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place))[:, 0]

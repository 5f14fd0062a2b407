"""Log-probabilities of completion tokens from hidden states: the output head runs on chunks of
positions and is never kept.

The backward pass computes each chunk's logits again instead of storing them, so [tokens,
vocabulary] never exists at once; the softmax is in fp32 whatever the model's dtype. Test: pytest
tests/tasks/models/packed/test_head.py
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

Draw = Callable[[Tensor, Tensor], Tensor]
"""(logits [tokens, vocabulary], target [tokens]) -> another token for each place, [tokens]."""

CHUNK = 256  # positions: 50 MB of fp32 logits for a vocabulary of 49,152


class TokenScores(NamedTuple):
    """Of each completion token: its log-probability, fp32 [tokens], with gradients; and the entropy
    of the distribution it was taken from, in nats, fp32 [tokens], without."""

    logps: Tensor
    entropy: Tensor


def completion_logps(
    hidden: Tensor,
    target: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    chunk: int = CHUNK,
) -> TokenScores:
    """log softmax(hidden weight^T + bias)[target] and the entropy, of hidden [tokens, width],
    target [tokens], weight [vocabulary, width].

    Differentiable in hidden, weight and bias. `softcap` c squashes the logits to c tanh(logits / c)
    (Gemma 2).
    """
    return TokenScores(*_CompletionLogps.apply(hidden, weight, bias, target, softcap, chunk))  # pyright: ignore[reportGeneralTypeIssues]


@torch.no_grad()
def draw_tokens(
    draw: Draw,
    hidden: Tensor,
    target: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """What `draw` makes of the logits at each place, [tokens], a chunk of positions at a time."""
    parts = zip(hidden.split(chunk), target.split(chunk), strict=True)
    return torch.cat([draw(_logits(part, weight, bias, softcap), tokens) for part, tokens in parts])


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    logits = linear(hidden, weight, bias).float()
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


class _CompletionLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        softcap: float | None,
        chunk: int,
    ) -> TokenScores:
        normaliser = torch.empty(len(target), device=hidden.device)
        picked, entropy = torch.empty_like(normaliser), torch.empty_like(normaliser)
        for start in range(0, len(target), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], weight, bias, softcap)
            picked[part] = logits.gather(1, target[part, None])[:, 0]
            normaliser[part] = logits.logsumexp(dim=1)
            # H = log Z - sum p z, without another copy of the logits than p
            entropy[part] = normaliser[part] - torch.einsum(
                "tv,tv->t", (logits - normaliser[part, None]).exp_(), logits
            )
        ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(hidden, weight, bias, target, normaliser)
        ctx.softcap, ctx.chunk = softcap, chunk
        return TokenScores(picked - normaliser, entropy)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, normaliser = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = (
            torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        )
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        for start in range(0, len(target), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = _logits(hidden[part], weight, bias, ctx.softcap)
            # d log p(target) / d logits = onehot(target) - softmax(logits)
            slope = None if ctx.softcap is None else 1 - (logits / ctx.softcap).square_()
            gradient = logits.sub_(normaliser[part, None]).exp_().neg_()
            rows = torch.arange(len(gradient), device=gradient.device)
            gradient[rows, target[part]] += 1
            gradient.mul_(gradients[0][part, None])
            gradient = (gradient if slope is None else gradient.mul_(slope)).to(weight.dtype)
            of_hidden[part] = gradient @ weight
            if of_weight is not None:
                _add_product(of_weight, gradient.T, hidden[part])
            if of_bias is not None:
                of_bias += gradient.sum(dim=0, dtype=torch.float32)
        return (
            of_hidden,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in one pass where the dtypes agree."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right

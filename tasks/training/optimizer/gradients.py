"""Gradients of the trained parameters, fp32, taken as the backward pass makes them; clipped by
their norm over all processes.

Test: pytest tests/tasks/training/optimizer/test_optimizer.py
"""

from functools import partial
from typing import Protocol
from weakref import finalize, ref

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dapflow.tasks.training.processes.ranks import Ranks

EPSILON = 1e-8  # of Adam


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Those that want gradients, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def clip(gradients: list[Tensor], max_norm: float, ranks: Ranks) -> float:
    """Sum the gradients over all processes (those of shards are sums already), in the same order
    everywhere, and clip them.
    """
    if not ranks.sharded:
        ranks.add_up(gradients)
    total = torch.nn.utils.get_total_norm(gradients)
    if ranks.sharded:
        squared = total.square()
        ranks.add_up([squared])
        total = squared.sqrt()
    norm = total.item()
    if norm > max_norm:
        factor = max_norm / (norm + 1e-6)
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]
    return norm


class Collects(Protocol):
    def add(self, name: str, gradient: Tensor) -> None:
        """Take a parameter's gradient, fp32 and the taker's own, of one of several backward passes
        before a step.
        """
        ...


def collect(parameters: dict[str, torch.nn.Parameter], owner: Collects) -> None:
    """Hand each gradient on in fp32 as it comes, and free it: those of a whole model never exist at
    once. Ends with the owner's life.
    """
    alive = ref(owner)

    def hand_on(name: str, parameter: Tensor) -> None:
        owner = alive()
        assert owner is not None
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad, None
        owner.add(name, gradient.to_local() if isinstance(gradient, DTensor) else gradient.float())

    for name, parameter in parameters.items():
        hook = parameter.register_post_accumulate_grad_hook(partial(hand_on, name))
        finalize(owner, hook.remove).atexit = False

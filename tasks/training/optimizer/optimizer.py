"""AdamW with fp32 arithmetic, whatever the model's dtype. Its state goes to and from plain tensors
by name.

    MasterAdamW     fp32 master weights beside weights of lower precision: exact, 16 bytes a
                    parameter in bf16 (10 with 8-bit moments)
    RoundedAdamW    no masters, bf16 weights rounded stochastically: unbiased, 12 bytes a parameter
                    (rounded.py)
Both add gradients up in fp32 as they come. Test: pytest
tests/tasks/training/optimizer/test_optimizer.py
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dapflow.storage.errors import UserError
from dapflow.tasks.training.optimizer.gradients import EPSILON, clip, collect, trained_parameters
from dapflow.tasks.training.optimizer.rounded import RoundedAdamW
from dapflow.tasks.training.processes.ranks import ALONE, Ranks
from dapflow.tasks.training.settings import Training


class Optimizer(Protocol):
    """What `fit` needs of an optimiser."""

    def step(self, learning_rate: float) -> float:
        """Add up the gradients of all processes, clip, step and forget them.

        Returns their norm before clipping. Where it is not finite nothing is changed.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """All there is under flat names; views, so save them before the next step."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state` gave, as copies (a loaded file stays mapped), and set the model's
        weights from it.
        """
        ...


def pick_optimizer(
    model: torch.nn.Module, settings: Training, seed: int, ranks: Ranks = ALONE
) -> Optimizer:
    """The optimiser that the settings name; for bf16 weights by default stochastic rounding.

    Steps of 1e-5 and less are a tenth of what bf16 weights can tell apart: rounded to the nearest,
    all of them stay for some steps and then move together, though masters know better
    (tests/benchmarks/quality/precision.py measures both against fp32).
    """
    halves = any(
        parameter.dtype != torch.float32 for parameter in trained_parameters(model).values()
    )
    possible = halves and not ranks.sharded and settings.moments == "float32"
    stochastic = settings.weights == "stochastic" or (settings.weights == "auto" and possible)
    return (
        RoundedAdamW(model, settings, seed, ranks)
        if stochastic
        else MasterAdamW(model, settings, ranks)
    )


class MasterAdamW:
    """AdamW whose weights are fp32, and its moments too unless they are to take a byte each
    (blockwise, arXiv 2110.02861).

    An fp32 parameter is its own master. A parameter of lower precision gets an fp32 copy, and after
    each step it takes the copy's value, rounded. Of a sharded parameter, the master is this
    process's shard.
    """

    def __init__(self, model: torch.nn.Module, settings: Training, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.parameters = trained_parameters(model)
        self.masters = {name: _master(parameter) for name, parameter in self.parameters.items()}
        collect(
            {
                name: parameter
                for name, parameter in self.parameters.items()
                if self.masters[name] is not parameter
            },
            self,
        )
        held = [
            m for m in self.masters.values() if m.numel()
        ]  # a small parameter's shard may be empty
        matrices, vectors = [m for m in held if m.ndim >= 2], [m for m in held if m.ndim < 2]
        self.max_grad_norm = settings.max_grad_norm
        self.adamw = _adamw(settings.moments)(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
            betas=settings.betas,
            eps=EPSILON,
            weight_decay=settings.weight_decay,
        )

    def add(self, name: str, gradient: Tensor) -> None:
        master = self.masters[name]
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    def step(self, learning_rate: float) -> float:
        norm = clip(
            [m.grad for m in self.masters.values() if m.grad is not None],
            self.max_grad_norm,
            self.ranks,
        )
        if norm < float("inf"):
            for group in self.adamw.param_groups:
                group["lr"] = learning_rate
            self.adamw.step()
            self._publish()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        tensors = {f"master/{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            tensors |= {
                f"{key}/{name}": _tensor(key, value)
                for key, value in self.adamw.state[master].items()
            }
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for full_name, tensor in tensors.items():
            key, name = full_name.split("/", 1)
            master = self.masters[name]
            if key == "master":
                master.copy_(tensor)
            else:
                own = tensor.to(master.device, copy=True)
                self.adamw.state[master][key] = int(own) if tensor.dtype == torch.int64 else own
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        stale = [
            name
            for name, master in self.masters.items()
            if master.dtype != self.parameters[name].dtype
        ]
        if stale:
            weights: list[Tensor] = [self.parameters[name] for name in stale]
            masters: list[Tensor] = [self.masters[name] for name in stale]
            torch._foreach_copy_(weights, masters)  # pyright: ignore[reportPrivateImportUsage]


def _adamw(moments: str) -> Callable[..., torch.optim.Optimizer]:
    if moments == "float32":
        return partial(torch.optim.AdamW, fused=True)
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError:
        raise UserError(
            "training.moments=8bit needs bitsandbytes: pip install 'dapflow[eight-bit]'."
        ) from None
    return AdamW8bit


def _tensor(key: str, value: Any) -> Tensor:
    """A part of an optimiser's state on its own: bitsandbytes shares its code books (qmap) and
    counts steps in an int.
    """
    if isinstance(value, Tensor):
        return value.clone() if key.startswith("qmap") else value
    return torch.tensor(value)


def _master(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if isinstance(parameter, DTensor):
        return torch.nn.Parameter(parameter.to_local().detach())  # the same memory
    return (
        parameter
        if parameter.dtype == torch.float32
        else torch.nn.Parameter(parameter.detach().float())
    )

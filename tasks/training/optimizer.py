"""AdamW with fp32 arithmetic, whatever the model's dtype. Its state goes to and from plain tensors by name.

    MasterAdamW     fp32 master weights beside weights of lower precision: 16 bytes a parameter in bf16, exact (10 with 8-bit moments)
    RoundedAdamW    no masters, bf16 weights rounded stochastically: 12 bytes a parameter, unbiased
Both add gradients up in fp32 as they come. Test: pytest tests/tasks/training/test_optimizer.py
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from storage.errors import UserError
from tasks.seeds import derive_seed
from tasks.training.ranks import ALONE, Ranks
from tasks.training.settings import Training

EPSILON = 1e-8


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
        """Take up what `state` gave, as copies (a loaded file stays mapped), and set the model's weights from it."""
        ...


def pick_optimizer(model: torch.nn.Module, settings: Training, seed: int, ranks: Ranks = ALONE) -> Optimizer:
    """The optimiser that the settings name; for bf16 weights by default stochastic rounding.

    Steps of 1e-5 and less are a tenth of what bf16 weights can tell apart: rounded to the nearest, all of them stay for some steps
    and then move together, though masters know better (tests/benchmarks/precision.py measures both against fp32).
    """
    halves = any(parameter.dtype != torch.float32 for parameter in _trained(model).values())
    possible = halves and not ranks.sharded and settings.moments == "float32"
    stochastic = settings.weights == "stochastic" or (settings.weights == "auto" and possible)
    return RoundedAdamW(model, settings, seed, ranks) if stochastic else MasterAdamW(model, settings, ranks)


class MasterAdamW:
    """AdamW whose weights are fp32, and its moments too unless they are to take a byte each (blockwise, arXiv 2110.02861).

    An fp32 parameter is its own master. A parameter of lower precision gets an fp32 copy, and after each step it takes the copy's value,
    rounded. Of a sharded parameter, the master is this process's shard.
    """

    def __init__(self, model: torch.nn.Module, settings: Training, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.parameters = _trained(model)
        self.masters = {name: _master(parameter) for name, parameter in self.parameters.items()}
        held = [m for m in self.masters.values() if m.numel()]  # a small parameter's shard may be empty
        matrices, vectors = [m for m in held if m.ndim >= 2], [m for m in held if m.ndim < 2]
        self.max_grad_norm = settings.max_grad_norm
        self.adamw = _adamw(settings.moments)(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
            betas=settings.betas,
            eps=EPSILON,
            weight_decay=settings.weight_decay,
        )

    def step(self, learning_rate: float) -> float:
        norm = _clip([m.grad for m in self.masters.values() if m.grad is not None], self.max_grad_norm, self.ranks)
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
            tensors |= {f"{key}/{name}": _tensor(key, value) for key, value in self.adamw.state[master].items()}
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
        for name, master in self.masters.items():
            if master.dtype != self.parameters[name].dtype:
                self.parameters[name].copy_(master)


class RoundedAdamW:
    """AdamW without master weights: each new value is computed in fp32 and rounded up or down by chance, so that it is right on average.

    Small steps are lost in bf16 when each is rounded to the nearest value (arXiv 2010.06192, section 4).
    """

    def __init__(self, model: torch.nn.Module, settings: Training, seed: int, ranks: Ranks = ALONE) -> None:
        assert not ranks.sharded, "`Training` refuses it: shards are fp32"
        self.ranks = ranks
        self.parameters = _trained(model)
        self.settings = settings
        self.seed = seed
        self.steps = 0
        self.sums: dict[str, Tensor] = {}
        self.moments = {name: tuple(torch.zeros_like(p, dtype=torch.float32) for _ in range(2)) for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            _collect(parameter, lambda gradient, name=name: self._add(name, gradient))

    def _add(self, name: str, gradient: Tensor) -> None:
        self.sums[name] = self.sums[name].add_(gradient) if name in self.sums else gradient

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        norm = _clip([self.sums[name] for name in self.parameters if name in self.sums], self.settings.max_grad_norm, self.ranks)
        if norm < float("inf"):
            self.steps += 1
            for name, gradient in self.sums.items():
                self._update(name, gradient, learning_rate)
        self.sums.clear()
        return norm

    def _update(self, name: str, gradient: Tensor, learning_rate: float) -> None:
        parameter, (first, second) = self.parameters[name], self.moments[name]
        beta1, beta2 = self.settings.betas
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (second / (1 - beta2**self.steps)).sqrt_().add_(EPSILON)
        fresh = parameter.float()
        if parameter.ndim >= 2:
            fresh = fresh * (1 - learning_rate * self.settings.weight_decay)
        fresh = fresh.addcdiv(first, scale, value=-learning_rate / (1 - beta1**self.steps))
        random = torch.Generator(parameter.device).manual_seed(derive_seed(self.seed, "rounding", self.steps, name))
        parameter.copy_(fresh if parameter.dtype == torch.float32 else round_stochastically(fresh, random))

    def state(self) -> dict[str, Tensor]:
        tensors = {"step": torch.tensor(self.steps)}
        for name, parameter in self.parameters.items():
            first, second = self.moments[name]
            tensors |= {f"weight/{name}": parameter.detach(), f"exp_avg/{name}": first, f"exp_avg_sq/{name}": second}
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        self.steps = int(tensors["step"])
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            for moment, key in zip(self.moments[name], ("exp_avg", "exp_avg_sq"), strict=True):
                moment.copy_(tensors[f"{key}/{name}"])


def _adamw(moments: str) -> Callable[..., torch.optim.Optimizer]:
    if moments == "float32":
        return partial(torch.optim.AdamW, fused=True)
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError:
        raise UserError("training.moments=8bit needs bitsandbytes: pip install 'dapflow[eight-bit]'.") from None
    return AdamW8bit


def _tensor(key: str, value: Any) -> Tensor:
    """A part of an optimiser's state on its own: bitsandbytes shares its code books (qmap) and counts steps in an int."""
    if isinstance(value, Tensor):
        return value.clone() if key.startswith("qmap") else value
    return torch.tensor(value)


def round_stochastically(values: Tensor, random: torch.Generator) -> Tensor:
    """fp32 -> bf16, up or down with the probability that keeps the mean."""
    noise = torch.randint(0, 1 << 16, values.shape, generator=random, device=values.device, dtype=torch.int32)
    bits = (values.contiguous().view(torch.int32) + noise) & -(1 << 16)
    return bits.view(torch.float32).to(torch.bfloat16)


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _clip(gradients: list[Tensor], max_norm: float, ranks: Ranks) -> float:
    """Sum the gradients over all processes (those of shards are sums already), in the same order everywhere, and clip them."""
    if not ranks.sharded:
        ranks.add_up(gradients)
    total = torch.nn.utils.get_total_norm(gradients)
    if ranks.sharded:
        squared = total.square()
        ranks.add_up([squared])
        total = squared.sqrt()
    norm = total.item()
    if norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / (norm + 1e-6))
    return norm


def _master(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if isinstance(parameter, DTensor):
        master = torch.nn.Parameter(parameter.to_local().detach())  # the same memory
    elif parameter.dtype == torch.float32:
        return parameter
    else:
        master = torch.nn.Parameter(parameter.detach().float())

    def add(gradient: Tensor) -> None:
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    _collect(parameter, add)
    return master


def _collect(parameter: torch.nn.Parameter, add: Callable[[Tensor], None]) -> None:
    """Hand each gradient on in fp32 as it comes, and free it: those of a whole model never exist at once."""

    def hand_on(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad, None
        add(gradient.to_local() if isinstance(gradient, DTensor) else gradient.float())

    parameter.register_post_accumulate_grad_hook(hand_on)

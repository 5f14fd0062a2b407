"""AdamW with fp32 arithmetic, whatever the model's dtype. Its state goes to and from plain tensors by name.

    MasterAdamW     fp32 master weights beside weights of lower precision: 16 bytes a parameter in bf16, exact
    RoundedAdamW    no masters, bf16 weights rounded stochastically: 12 bytes a parameter, unbiased
Both add gradients up in fp32 as they come. Test: pytest tests/tasks/training/test_optimizer.py
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tasks.seeds import derive_seed
from tasks.training.settings import Training

EPSILON = 1e-8


class Optimizer(Protocol):
    """What `fit` needs of an optimiser."""

    def gradients(self) -> list[Tensor]:
        """The fp32 gradients added up since the last step, one a trained parameter, in place."""
        ...

    def step(self, learning_rate: float) -> float:
        """Clip, step and forget the gradients; returns their norm before clipping. Where it is not finite nothing is changed."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All there is under flat names; views, so save them before the next step."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state` gave, as copies (a loaded file stays mapped), and set the model's weights from it."""
        ...


def pick_optimizer(model: torch.nn.Module, settings: Training, seed: int) -> Optimizer:
    """The optimiser that the settings name."""
    return MasterAdamW(model, settings) if settings.weights == "master" else RoundedAdamW(model, settings, seed)


class MasterAdamW:
    """AdamW whose weights and moments are fp32.

    An fp32 parameter is its own master. A parameter of lower precision gets an fp32 copy, and after each step it takes the copy's value,
    rounded.
    """

    def __init__(self, model: torch.nn.Module, settings: Training) -> None:
        self.parameters = _trained(model)
        self.masters = {name: _master(parameter) for name, parameter in self.parameters.items()}
        matrices = [m for m in self.masters.values() if m.ndim >= 2]
        vectors = [m for m in self.masters.values() if m.ndim < 2]
        self.max_grad_norm = settings.max_grad_norm
        self.adamw = torch.optim.AdamW(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
            betas=settings.betas,
            eps=EPSILON,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def gradients(self) -> list[Tensor]:
        return [m.grad for m in self.masters.values() if m.grad is not None]

    def step(self, learning_rate: float) -> float:
        norm = _clip(self.gradients(), self.max_grad_norm)
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
            tensors |= {f"{key}/{name}": value for key, value in self.adamw.state[master].items()}
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, master in self.masters.items():
            master.copy_(tensors[f"master/{name}"])
            self.adamw.state[master] = {
                key: tensors[f"{key}/{name}"].to(master.device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in tensors
            }
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                self.parameters[name].copy_(master)


class RoundedAdamW:
    """AdamW without master weights: each new value is computed in fp32 and rounded up or down by chance, so that it is right on average.

    Small steps are lost in bf16 when each is rounded to the nearest value (arXiv 2010.06192, section 4).
    """

    def __init__(self, model: torch.nn.Module, settings: Training, seed: int) -> None:
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

    def gradients(self) -> list[Tensor]:
        return list(self.sums.values())

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        norm = _clip(self.gradients(), self.settings.max_grad_norm)
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


def round_stochastically(values: Tensor, random: torch.Generator) -> Tensor:
    """fp32 -> bf16, up or down with the probability that keeps the mean."""
    noise = torch.randint(0, 1 << 16, values.shape, generator=random, device=values.device, dtype=torch.int32)
    bits = (values.contiguous().view(torch.int32) + noise) & -(1 << 16)
    return bits.view(torch.float32).to(torch.bfloat16)


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _clip(gradients: list[Tensor], max_norm: float) -> float:
    norm = torch.nn.utils.get_total_norm(gradients).item()
    if norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / (norm + 1e-6))
    return norm


def _master(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    master = torch.nn.Parameter(parameter.detach().float())

    def add(gradient: Tensor) -> None:
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    _collect(parameter, add)
    return master


def _collect(parameter: torch.nn.Parameter, add: Callable[[Tensor], None]) -> None:
    """Hand each gradient on in fp32 as it comes, and free it: those of a whole model never exist at once."""

    def hand_on(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.float(), None
        add(gradient)

    parameter.register_post_accumulate_grad_hook(hand_on)

"""`RoundedAdamW`: AdamW without master weights. Test: pytest
tests/tasks/training/optimizer/test_optimizer.py
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.training.optimizer.gradients import EPSILON, clip, collect, trained_parameters
from dapflow.tasks.training.processes.ranks import ALONE, Ranks
from dapflow.tasks.training.settings import Training

_AT_ONCE = (
    1 << 24
)  # parameters that are updated together: what that takes beside them stays under half a GiB


class RoundedAdamW:
    """AdamW without master weights: each new value is computed in fp32 and rounded up or down by
    chance, so that it is right on average.

    Small steps are lost in bf16 when each is rounded to the nearest value (arXiv 2010.06192,
    section 4).
    """

    def __init__(
        self, model: torch.nn.Module, settings: Training, seed: int, ranks: Ranks = ALONE
    ) -> None:
        assert not ranks.sharded, "`Training` refuses it: shards are fp32"
        self.ranks = ranks
        self.parameters = trained_parameters(model)
        self.settings = settings
        self.seed = seed
        self.steps = 0
        self.sums: dict[str, Tensor] = {}
        self.chunks = [
            _Chunk(part, decay) for part, decay in _parts(self.parameters, settings.weight_decay)
        ]
        collect(self.parameters, self)

    def add(self, name: str, gradient: Tensor) -> None:
        self.sums[name] = self.sums[name].add_(gradient) if name in self.sums else gradient

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        norm = clip(
            [self.sums[name] for name in self.parameters if name in self.sums],
            self.settings.max_grad_norm,
            self.ranks,
        )
        if norm < float("inf"):
            self.steps += 1
            for number, chunk in enumerate(self.chunks):
                seed = derive_seed(self.seed, "rounding", self.steps, number)
                chunk.update(self.sums, learning_rate, self.settings.betas, self.steps, seed)
        self.sums.clear()
        return norm

    def state(self) -> dict[str, Tensor]:
        tensors = {"step": torch.tensor(self.steps)}
        for chunk in self.chunks:
            for name, first, second in chunk.moments():
                tensors |= {
                    f"weight/{name}": self.parameters[name].detach(),
                    f"exp_avg/{name}": first,
                    f"exp_avg_sq/{name}": second,
                }
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        self.steps = int(tensors["step"])
        for chunk in self.chunks:
            for name, first, second in chunk.moments():
                self.parameters[name].copy_(tensors[f"weight/{name}"])
                first.copy_(tensors[f"exp_avg/{name}"])
                second.copy_(tensors[f"exp_avg_sq/{name}"])


class _Chunk:
    """Parameters of one dtype that are updated at once, their moments in one row each: a GPU is
    asked a dozen times, not for each tensor.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay = parameters, weight_decay
        self.sizes = [parameter.numel() for parameter in parameters.values()]
        any_one = next(iter(parameters.values()))
        self.first, self.second = any_one.new_zeros(2, sum(self.sizes), dtype=torch.float32)

    def update(
        self,
        gradients: dict[str, Tensor],
        learning_rate: float,
        betas: tuple[float, float],
        step: int,
        seed: int,
    ) -> None:
        """AdamW's step number `step`, counted from 1, of the parameters that have a gradient."""
        weights: list[Tensor] = list(self.parameters.values())
        fresh = torch.cat([weight.flatten() for weight in weights]).float()
        rows = zip(
            self.parameters,
            *(row.split(self.sizes) for row in (fresh, self.first, self.second)),
            strict=True,
        )
        found = [
            (new, gradients[name].flatten(), first, second)
            for name, new, first, second in rows
            if name in gradients
        ]
        if not found:
            return
        steps = fresh.new_full((len(found),), step - 1).unbind()
        news, gradient, firsts, seconds = (list(column) for column in zip(*found, strict=True))
        adamw(
            news,
            gradient,
            firsts,
            seconds,
            [],
            list(steps),
            fused=True,
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=learning_rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        if weights[0].dtype != torch.float32:
            fresh = round_stochastically(fresh, torch.Generator(fresh.device).manual_seed(seed))
        parts = [
            part.view_as(weight)
            for part, weight in zip(fresh.split(self.sizes), weights, strict=True)
        ]
        torch._foreach_copy_(weights, parts)  # pyright: ignore[reportPrivateImportUsage]

    def moments(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, first and second moment of each parameter, views in its shape."""
        parts = zip(
            self.parameters.items(),
            self.first.split(self.sizes),
            self.second.split(self.sizes),
            strict=True,
        )
        return (
            (name, first.view_as(parameter), second.view_as(parameter))
            for (name, parameter), first, second in parts
        )


def _parts(
    parameters: dict[str, torch.nn.Parameter], weight_decay: float
) -> Iterator[tuple[dict[str, torch.nn.Parameter], float]]:
    """Parameters that can be updated together, and their weight decay: vectors have none. A tensor
    that is larger is a part of its own.
    """
    kinds = defaultdict[tuple[torch.dtype, bool], list[str]](list)
    for name, parameter in parameters.items():
        kinds[parameter.dtype, parameter.ndim >= 2].append(name)
    for (_, matrices), names in kinds.items():
        decay, part, size = weight_decay if matrices else 0.0, dict[str, torch.nn.Parameter](), 0
        for name in names:
            if part and size + parameters[name].numel() > _AT_ONCE:
                yield part, decay
                part, size = {}, 0
            part[name] = parameters[name]
            size += parameters[name].numel()
        yield part, decay


def round_stochastically(values: Tensor, random: torch.Generator) -> Tensor:
    """fp32 -> bf16, up or down with the probability that keeps the mean. The values' memory is used
    for it.
    """
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device)
    noise = draws.random_(-(2**63), None, generator=random).view(torch.int16)[
        : values.numel()
    ]  # all 64 bits: from -2^15 to 2^15 - 1
    bits = (
        values.view(torch.int32).add_(1 << 15).add_(noise.view_as(values)).bitwise_and_(-(1 << 16))
    )
    return bits.view(torch.float32).to(torch.bfloat16)

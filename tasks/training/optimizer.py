"""AdamW over fp32 master weights, whatever the model's dtype. Its state goes to and from plain tensors by name.

Test: pytest tests/tasks/training/test_optimizer.py
"""

import torch
from torch import Tensor

from tasks.training.settings import Training


class MasterAdamW:
    """AdamW whose weights and moments are fp32.

    An fp32 parameter is its own master. A parameter of lower precision gets an fp32 copy; its gradients are added up in fp32 as they
    come (and freed, so they never exist all at once), and after each step it takes the copy's value, rounded.
    """

    def __init__(self, model: torch.nn.Module, settings: Training) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: _master(parameter) for name, parameter in self.parameters.items()}
        matrices = [m for m in self.masters.values() if m.ndim >= 2]
        vectors = [m for m in self.masters.values() if m.ndim < 2]
        self.max_grad_norm = settings.max_grad_norm
        self.adamw = torch.optim.AdamW(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def step(self, learning_rate: float) -> float:
        """Clip, step and forget the gradients; returns their norm before clipping. Where it is not finite nothing is changed."""
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm).item()
        if norm < float("inf"):
            for group in self.adamw.param_groups:
                group["lr"] = learning_rate
            self.adamw.step()
            self._publish()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Masters, both moments and the step count of each, under flat names; views, so save them before the next step."""
        tensors = {f"master/{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            tensors |= {f"{key}/{name}": value for key, value in self.adamw.state[master].items()}
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state` gave, as copies (a loaded file stays mapped), and set the model's weights from it."""
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


def _master(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    master = torch.nn.Parameter(parameter.detach().float())

    def collect(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.float(), None
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    parameter.register_post_accumulate_grad_hook(collect)
    return master

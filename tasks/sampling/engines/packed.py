"""Linear layers for decoding on a CPU: weights laid out once as oneDNN multiplies a few rows by
them fastest, a third to a half faster.

Test: pytest tests/tasks/sampling/engines/test_packed.py
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from dapflow.tasks.models.dtypes import fast_dtype

_MOST_BYTES = 4 << 30  # of weights: they are held twice


class PackedLinears:
    """The packed weights of a model's linear layers; empty where packing is of no use."""

    def __init__(self, model: torch.nn.Module, rows: int) -> None:
        """rows: how many are multiplied at once."""
        layers = [module for module in model.modules() if type(module) is torch.nn.Linear]
        size = sum(layer.weight.nbytes for layer in layers)
        fast = (torch.float32, fast_dtype(torch.device("cpu")))
        useful = all(
            layer.weight.device.type == "cpu" and layer.weight.dtype in fast for layer in layers
        )
        possible = torch.backends.mkldnn.is_available() and hasattr(
            torch.ops.mkldnn, "_reorder_linear_weight"
        )
        self._packed: list[tuple[Any, Tensor]] = []
        if useful and possible and size <= _MOST_BYTES:
            with torch.no_grad():
                self._packed = [
                    (layer, torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows))
                    for layer in layers
                ]

    @contextmanager
    def used(self) -> Iterator[None]:
        """While it lasts the model's layers multiply by them, wherever no gradient is wanted."""
        for layer, packed in self._packed:
            layer.forward = partial(_multiply, layer, packed)
        try:
            yield
        finally:
            for layer, _ in self._packed:
                del layer.forward


def _multiply(layer: torch.nn.Linear, packed: Tensor, x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return linear(x, layer.weight, layer.bias)
    return torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, "none", [], "")

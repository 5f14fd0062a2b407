"""A device that is not there: tensors on it are computed by the CPU, but refuse to meet the CPU's
own, as a GPU's do.

    with elsewhere() as device: model.to(device) ...
For the tests of what runs on a GPU where there is none. Values are right, memory and speed are not
a GPU's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest.mock import patch

import torch
import torch.distributed.tensor  # before torch.Generator is replaced: it annotates by it
from torch import Tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # a name that a CPU build can differentiate through
_MAY_MEET = frozenset(
    {"copy_", "_to_copy", "index", "index_put_", "_foreach_copy_"}
)  # as with CUDA: copies, and indices of the CPU

_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]


class Elsewhere(Tensor):
    """A tensor of the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Self:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, tensors = (
        func._schema.name.split("::")[1],
        [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)],
    )
    assert all(isinstance(one, Elsewhere) or not one.is_meta for one in tensors), (
        f"a tensor without values: {func}"
    )
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.ndim]
    there = len(here) < len(tensors) and any(isinstance(one, Elsewhere) for one in tensors)
    if (
        there
        and here
        and (
            name not in _MAY_MEET
            or (name.startswith("index") and not isinstance(args[0], Elsewhere))
        )
    ):
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    if name == "copy_":
        there = isinstance(args[0], Elsewhere)
    if kwargs.get("device") is not None:
        there, kwargs = _is_elsewhere(kwargs["device"]), kwargs | {"device": torch.device("cpu")}
    of = {id(_held(one)): one for one in tensors}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    return tree_map(
        lambda one: (
            of.get(id(one), Elsewhere(one) if there else one) if isinstance(one, Tensor) else one
        ),
        found,
    )


def _held(one: Any) -> Any:
    return one.held if isinstance(one, Elsewhere) else one


def _is_elsewhere(device: Any) -> bool:
    return torch.device(device).type == DEVICE.type


class _Operations(TorchDispatchMode):
    """What makes tensors out of nothing, on whichever device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What carries values in or out past the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            func is torch.tensor
            and kwargs.get("device") is not None
            and _is_elsewhere(kwargs["device"])
        ):
            return torch.tensor(*args, **(kwargs | {"device": "cpu"})).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(args[1], **({"dtype": args[0].dtype} | kwargs)).to(DEVICE)
        if (
            func in (Tensor.__getitem__, Tensor.__setitem__)
            and isinstance(args[0], Elsewhere)
            and isinstance(args[1], list)
        ):
            return func(args[0], torch.tensor(args[1]), *args[2:])
        if func == _SET_DATA and isinstance(args[0], Elsewhere):
            args[0].held = args[1].held
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].held.tolist()
        return func(*args, **kwargs)


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> Self:
        return super().__new__(cls)


def _without_gradients(mode: Any) -> None:
    mode.instead = torch.no_grad()
    mode.instead.__enter__()


def _with_gradients(mode: Any, *error: Any) -> None:
    mode.instead.__exit__(*error)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """The device, while it lasts, in this thread. A generator for it is one of the CPU."""
    with (
        patch.object(torch, "Generator", _Generator),
        patch.multiple(
            torch.inference_mode, __enter__=_without_gradients, __exit__=_with_gradients
        ),  # its views cannot be wrapped
        patch.object(_foreach_utils, "_get_fused_kernels_supported_devices", lambda: [DEVICE.type]),
        patch.object(optimizer, "_get_fused_kernels_supported_devices", lambda: [DEVICE.type]),
        _Functions(),
        _Operations(),
    ):
        yield DEVICE

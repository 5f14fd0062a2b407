"""`@loss`: what a loss function brings with it, and `losses()`, which finds all by their files.

No module that trains names a loss's file, so that none of its versions follow it: `Loss.content`
tells a step the version of the loss that it is given. Test: pytest
tests/tasks/training/losses/test_losses.py
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar, get_type_hints

from pydantic import create_model
from torch import Tensor

from dapflow.tasks.training.losses.needs import ActorCritic, Alternatives
from dapflow.tasks.training.losses.options import Options

FOLDERS = ("pairs", "answers")
LossFunction = Callable[..., Tensor]
F = TypeVar("F", bound=LossFunction)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A loss function of `Logps` and what the trainer must bring for it."""

    function: LossFunction
    needs_reference: bool
    alternatives: Alternatives | None
    critic: ActorCritic | None
    answers: int  # how many answers a group has, at least
    lists: bool  # and whether all of more count; else the first, or the first two
    source: str

    @property
    def needs_values(self) -> bool:
        """A value model, and the log-probs and values from when the answers were sampled."""
        return self.critic is not None

    @cached_property
    def own(self) -> dict[str, tuple[Any, Any]]:
        """The annotations and defaults of the function's options, its keyword parameters."""
        parameters = inspect.signature(self.function, eval_str=True).parameters
        return {
            name: (parameter.annotation, parameter.default)
            for name, parameter in parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @cached_property
    def options(self) -> type[Options]:
        """Those of the function and of what it needs."""
        fields: dict[str, Any] = dict(self.own)
        for need in filter(None, (self.alternatives, self.critic)):
            hints = get_type_hints(type(need), include_extras=True)
            fields |= {name: (hints[name], value) for name, value in need}
        return create_model(self.function.__name__, __base__=Options, **fields)


_LOSSES: dict[str, Registered] = {}


@cache
def losses() -> Mapping[str, Registered]:
    """All that there are, by name."""
    for folder in FOLDERS:
        package = import_module(f"{__package__}.{folder}")
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    return {name: _LOSSES[name] for name in sorted(_LOSSES)}


def loss(
    *,
    needs_reference: bool,
    source: str,
    answers: int = 2,
    lists: bool = False,
    alternatives: Alternatives | None = None,
    critic: ActorCritic | None = None,
) -> Callable[[F], F]:
    """Register `(logps: Logps, *, option=default, ...) -> Tensor [groups]` under its own name.

    needs_reference: whether it needs log-probs of a reference.
    source: the paper and its equation.
    answers: how many answers a group has, at least.
    lists: whether all of more count; else the first, or the first two.
    alternatives, critic: what else it needs (needs.py), with defaults for its options.
    Every option has a default and an annotation that pydantic can check (options.py, `Literal`).
    """

    def register(function: F) -> F:
        name = function.__name__
        assert name not in _LOSSES, f"two losses are called {name}"
        assert function.__module__ not in {
            other.function.__module__ for other in _LOSSES.values()
        }, f"{name} has no file of its own, which is its version"
        assert "weight" not in inspect.signature(function).parameters, (
            f"the weight of {name} in a sum is no option of its own"
        )
        assert needs_reference or critic is None, (
            "rewards of tokens are penalised against a reference"
        )
        _LOSSES[name] = Registered(
            function=function,
            needs_reference=needs_reference,
            alternatives=alternatives,
            critic=critic,
            answers=answers,
            lists=lists,
            source=source,
        )
        return function

    return register

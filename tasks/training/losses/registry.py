"""`@loss`: what a loss function brings with it into the registry that `losses.Loss` looks names up
in.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import Tensor

LossFunction = Callable[..., Tensor]
F = TypeVar("F", bound=LossFunction)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A loss function of `Logps` and what the trainer must bring for it."""

    function: LossFunction
    needs_reference: bool
    needs_cringe: bool
    needs_values: (
        bool  # a value model, and the log-probs and values from when the answers were sampled
    )
    answers: int  # how many answers a group has, at least
    lists: bool  # and whether all of more count; else the first, or the first two
    source: str

    @cached_property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword parameters of the function, annotations evaluated."""
        parameters = inspect.signature(self.function, eval_str=True).parameters
        return {
            name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
        }


LOSSES: dict[str, Registered] = {}


def loss(
    name: str,
    *,
    needs_reference: bool,
    source: str,
    answers: int = 2,
    lists: bool = False,
    needs_cringe: bool = False,
    needs_values: bool = False,
) -> Callable[[F], F]:
    """Register `(logps: Logps, *, option=default, ...) -> Tensor [groups]` under `name`; `source`
    is the paper and its equation.

    Every option has a default and an annotation that pydantic can check (`Annotated[float,
    Field(gt=0)]`, `Literal`).
    """

    def register(function: F) -> F:
        assert name not in LOSSES, f"two losses are called {name}"
        assert needs_reference or not needs_values, (
            "rewards of tokens are penalised against a reference"
        )
        LOSSES[name] = Registered(
            function=function,
            needs_reference=needs_reference,
            needs_cringe=needs_cringe,
            needs_values=needs_values,
            answers=answers,
            lists=lists,
            source=source,
        )
        return function

    return register

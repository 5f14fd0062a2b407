"""`Loss`, the value by which a recipe names a loss, or several with their weights.

    Loss.of("hinge_norm", gamma=0.05)        a loss and its options
    Loss.sum("sigmoid_norm", {"name": "nll", "weight": 0.5})
A new loss is one function under `@loss` in a file of its own, in pairs/ or answers/, by what it
learns from; nothing else changes, and no version of a training that does not name it. Test: pytest
tests/tasks/training/losses/test_losses.py tests/tasks/training/losses/test_sums.py
"""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any, Self, TypeVar

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import Tensor

from dapflow.tasks.step.code_version import code_version
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.needs import ActorCritic, Alternatives
from dapflow.tasks.training.losses.options import NotNegative, Options
from dapflow.tasks.training.losses.registry import Registered, losses

Need = TypeVar("Need", bound=Options)
_WRITTEN = "write it as its name, or as {name: ipo, tau: 0.5}"


class _Weight(Options):
    weight: NotNegative = 1.0


class Term(BaseModel):
    """A loss by its name, its options, and its weight in a sum. Defaults are filled in, so equal
    terms compare equal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weight: NotNegative = 1.0
    options: Options = Options()

    @model_serializer
    def _fold(self) -> dict[str, bool | int | float | str]:
        return {"name": self.name, "weight": self.weight, **self.options.model_dump()}

    @property
    def registered(self) -> Registered:
        return losses()[self.name]

    def needed(self, need: Need | None) -> Need | None:
        """What the loss needs beside log-probabilities, with the options that this value names."""
        if need is None:
            return None
        return need.model_copy(update={name: getattr(self.options, name) for name, _ in need})

    def __call__(self, logps: Logps) -> Tensor:
        """The loss of each group before its weight, [groups]."""
        registered = self.registered
        return registered.function(
            logps, **{name: getattr(self.options, name) for name in registered.own}
        )


class Loss(BaseModel):
    """A loss and its options as a value, or a weighted sum of several: `Loss.of("ipo", tau=0.5)`.
    A sum needs what any of its terms needs.

    Raises a ValueError that lists the names (unknown loss), lists the options (unknown option), or
    says what a value must be or why losses have no sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, name: str, **options: bool | float | str) -> Self:
        return cls.model_validate({"name": name, "options": options})

    @classmethod
    def sum(cls, *terms: str | dict[str, Any]) -> Self:
        """Of losses as a recipe writes them in a list, with a `weight` where it is not 1."""
        return cls.model_validate(list(terms))

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """A loss as a recipe writes it: a name, {name: hinge-norm, gamma: 0.05}, or a list of
        such, whose items may have a weight.
        """
        if isinstance(value, list | tuple):
            return {"terms": [_read_term(term) for term in value]}
        if isinstance(value, dict) and "weight" in value:
            raise ValueError("a weight is of a loss in a list: write [{name: nll, weight: 0.5}]")
        return {"terms": [_read_term(value)]}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.terms:
            raise ValueError(_WRITTEN)
        [(name, times)] = Counter(term.name for term in self.terms).most_common(1)
        if times > 1:
            raise ValueError(f"the loss {name} is in the sum {times} times: give it a weight")
        if clash := _clash(self.terms):
            raise ValueError(clash)
        return self

    @model_serializer
    def _fold(self) -> Any:
        """As a recipe writes it: a single loss without the list."""
        if not self._is_sum:
            return {
                key: value for key, value in self.terms[0].model_dump().items() if key != "weight"
            }
        return [term.model_dump() for term in self.terms]

    @property
    def _is_sum(self) -> bool:
        return len(self.terms) > 1 or any(term.weight != 1 for term in self.terms)

    def content(self) -> dict[str, str]:
        """The version of its code: of a step that is given the loss, which imports none by name."""
        codes = [code_version(term.registered.function.__module__) for term in self.terms]
        return {"code": " ".join(codes)}

    @property
    def name(self) -> str:
        """As it is shown: `sigmoid_norm + 1 x nll`."""
        shown = [f"{term.weight:g} x {term.name}" for term in self.terms]
        return " + ".join([shown[0].removeprefix("1 x "), *shown[1:]])

    @property
    def source(self) -> str:
        return "; ".join(term.registered.source for term in self.terms)

    @property
    def needs_reference(self) -> bool:
        return any(term.registered.needs_reference for term in self.terms)

    @property
    def needs_values(self) -> bool:
        """A value model, and the log-probs and values from when the answers were sampled."""
        return self.critic is not None

    @property
    def answers(self) -> int:
        """How many answers a group has, at least."""
        return max(term.registered.answers for term in self.terms)

    @property
    def lists(self) -> bool:
        """Whether all answers of more count; else the first, or the first two."""
        return any(term.registered.lists for term in self.terms)

    @property
    def alternatives(self) -> Alternatives | None:
        """How other tokens are drawn, where the loss asks for them."""
        needed = (term.needed(term.registered.alternatives) for term in self.terms)
        return next(filter(None, needed), None)

    @property
    def critic(self) -> ActorCritic | None:
        """What is made of a value model's values, where the loss asks for one."""
        needed = (term.needed(term.registered.critic) for term in self.terms)
        return next(filter(None, needed), None)

    def each(self, logps: Logps) -> Tensor:
        """The terms of each group before their weights, [terms, groups]."""
        return torch.stack([term(logps) for term in self.terms])

    def weighed(self, each: Tensor) -> Tensor:
        """Their sum with the weights: [terms, groups] -> [groups]."""
        weights = each.new_tensor([term.weight for term in self.terms])
        return (weights[:, None] * each).sum(dim=0)

    def __call__(self, logps: Logps) -> Tensor:
        """The loss of each group, [groups]."""
        return self.weighed(self.each(logps))


def _clash(terms: Sequence[Term]) -> str | None:
    """Why losses have no sum, in a sentence: two learn from different data, or each asks the
    trainer for tokens of its own.
    """
    for term, other in permutations(terms, 2):
        own, others = term.registered, other.registered
        if own.lists and others.answers > 1 and not others.lists:
            return (
                f"the loss {term.name} learns from lists of answers and {other.name} from pairs, "
                "so they have no sum"
            )
        if own.alternatives is not None and others.alternatives is not None:
            return f"the losses {term.name} and {other.name} each draw other tokens: take one"
    return None


def _read_term(value: Any) -> dict[str, Any]:
    """What a term is made of, from a name or a name with options and weight beside it."""
    given: Any = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or "name" not in given:
        raise ValueError(_WRITTEN)
    name = str(given["name"]).replace("-", "_")
    options = given.get("options", {})
    if not isinstance(options, dict):
        raise ValueError(_WRITTEN)
    beside = {key: each for key, each in given.items() if key not in ("name", "weight", "options")}
    weight = _valid(_Weight, name, {"weight": given.get("weight", 1.0)})
    return {"name": name, **dict(weight), "options": _options(name, options | beside)}


def _options(name: str, chosen: dict[str, Any]) -> Options:
    if name not in losses():
        raise ValueError(f"there is no loss {name!r}; choose one of {', '.join(losses())}")
    kind = losses()[name].options
    for option in chosen.keys() - kind.model_fields.keys():
        choice = f"its options are {', '.join(kind.model_fields)}"
        raise ValueError(
            f"the loss {name} has no option {option!r}; "
            f"{choice if kind.model_fields else 'it has no options'}"
        )
    return _valid(kind, name, chosen)


def _valid(kind: type[Options], name: str, values: dict[str, Any]) -> Options:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        [option, *_], message = error.errors()[0]["loc"], error.errors()[0]["msg"].lower()
        raise ValueError(
            f"{option}={values[str(option)]!r} of the loss {name}: {message}"
        ) from None

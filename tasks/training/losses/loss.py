"""`Loss`, the value by which a recipe names a loss.

A new loss is one function under `@loss` in a file of its own, in pairs/ or answers/, by what it
learns from; nothing else changes, and no version of a training that does not name it. Test: pytest
tests/tasks/training/losses/test_losses.py
"""

from typing import Any, Self, TypeVar

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
from dapflow.tasks.training.losses.options import Options
from dapflow.tasks.training.losses.registry import Registered, losses

Need = TypeVar("Need", bound=Options)


class Loss(BaseModel):
    """A loss and its options, as a value: `Loss.of("hinge_norm", gamma=0.05)`. Defaults are filled
    in, so equal losses compare equal.

    Raises a ValueError that lists the names (unknown loss), lists the options (unknown option) or
    says what a value must be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: Options = Options()

    @classmethod
    def of(cls, name: str, **options: bool | float | str) -> Self:
        return cls.model_validate({"name": name, "options": options})

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Also reads a bare name, and options beside the name: "hinge-norm", {"name": "hinge-norm",
        "gamma": 0.05}.
        """
        named = isinstance(value, str) or (
            isinstance(value, dict)
            and "name" in value
            and isinstance(value.get("options", {}), dict)
        )
        if not named:
            raise ValueError("write it as its name, or as {name: ipo, tau: 0.5}")
        given: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
        name = str(given.pop("name")).replace("-", "_")
        return {"name": name, "options": _options(name, given.pop("options", {}) | given)}

    @model_serializer
    def _fold(self) -> dict[str, bool | int | float | str]:
        return {"name": self.name, **self.options.model_dump()}

    def content(self) -> dict[str, str]:
        """The version of its code: of a step that is given the loss, which imports none by name."""
        return {"code": code_version(self.registered.function.__module__)}

    @property
    def registered(self) -> Registered:
        return losses()[self.name]

    @property
    def alternatives(self) -> Alternatives | None:
        """How other tokens are drawn, where the loss asks for them."""
        need = self.registered.alternatives
        return None if need is None else self._with_options(need)

    @property
    def critic(self) -> ActorCritic | None:
        """What is made of a value model's values, where the loss asks for one."""
        need = self.registered.critic
        return None if need is None else self._with_options(need)

    def _with_options(self, need: Need) -> Need:
        return need.model_copy(update={name: getattr(self.options, name) for name, _ in need})

    def __call__(self, logps: Logps) -> Tensor:
        """The loss of each group, [groups]."""
        registered = self.registered
        return registered.function(
            logps, **{name: getattr(self.options, name) for name in registered.own}
        )


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
    try:
        return kind.model_validate(chosen)
    except ValidationError as error:
        [option, *_], message = error.errors()[0]["loc"], error.errors()[0]["msg"].lower()
        raise ValueError(
            f"{option}={chosen[str(option)]!r} of the loss {name}: {message}"
        ) from None

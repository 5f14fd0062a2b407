"""What a judge is to a recipe: a value of a kind, with all that belongs to the kind.

A new kind is a subclass of `JudgeSpec` in a file of judges/ and a line in kinds.py. Nothing else
asks of which kind a judge is. Test: pytest tests/tasks/judging/test_kinds.py
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict

from dapflow.storage import Lake, ModelRef, UserError
from dapflow.tasks.judging.judges.base import Comparer, Judge
from dapflow.tasks.judging.material import Material
from dapflow.tasks.step import Work
from dapflow.tasks.step.code_version import code_version


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a judge that is opened in a step may use.

    version: the dataset version that the verdicts are rows of.
    model: the model of the lake that judges, if one does.
    baselines: an answer by prompt, for a judge that compares each completion with one.
    log: a file that a server of the judge's may write.
    """

    lake: Lake
    version: str
    model: ModelRef | None
    baselines: Mapping[str, str]
    say: Callable[[str], None]
    log: Path


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How a judge shows in each iteration that it can judge.

    labelled: pairs, at most, that people have labelled.
    fallback: the judge in its place when it is no better than chance, as a recipe names it; None:
    the run stops.
    """

    labelled: int
    fallback: str | None


class Seats(Protocol):
    """What a run gives a judge that needs more than its settings."""

    @property
    def policy(self) -> ModelRef: ...
    @property
    def sampler(self) -> Any:
        """The settings by which the policy is sampled from, within this run."""
        ...

    @property
    def chat_template(self) -> str | None: ...
    def reward_model(self, settings: Any) -> "Seated":
        """A model that is trained on the run's preferences, with the settings of a reward model."""
        ...


Unit = Literal["log-odds", "points"]


class JudgeSpec(BaseModel, ABC):
    """A judge as a recipe names it.

    Subclasses have a field `kind`, a literal with its default. What decides nothing of a verdict
    (an address, a limit) they name in `MACHINE`: it is no part of a version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    answers_at_once: ClassVar[bool] = True
    """Whether it can be asked within a round, with the policy in memory."""
    asked_as_a_whole: ClassVar[bool] = False
    """Whether it wants all questions of a step at once, under one budget, and keeps each answer."""
    in_memory: ClassVar[bool] = False
    """Whether it is a model in this process, of which one is loaded at a time."""
    may_measure: ClassVar[bool] = True
    """Whether it may measure the result of an iteration."""
    why_no_member: ClassVar[str | None] = None
    """Why it cannot be a member of a composite."""
    unit: ClassVar[Unit] = "points"
    """What its scores are in. log-odds: sigma of a difference is the probability that an answer is
    the better one, and pairs of what it has scored carry it as soft labels."""
    annotates: ClassVar[bool] = True
    """Whether a reward model may learn from its labels."""

    @classmethod
    def of_word(cls, word: str) -> Self:
        """The judge that a word stands for, of a kind whose judges have names."""
        raise AssertionError(f"no word stands for one of {cls.__name__}: {word}")

    @property
    @abstractmethod
    def compares(self) -> bool:
        """Whether it compares two completions, rather than score one."""

    @property
    def surely_compares(self) -> bool:
        """Whether its settings alone say that it compares: nothing of the user's is run."""
        return False

    @property
    def compares_with_a_baseline(self) -> bool:
        """Whether its scores are comparisons with a baseline answer to each prompt."""
        return False

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest score; None for logits. Raises UserError where there is no
        telling."""
        raise UserError(f"The judge {self} has no scale that is known: take another rule.")

    @property
    def identity(self) -> str:
        """By which it is recognised, whatever it is asked."""
        return str(self)

    @property
    def full_name(self) -> str:
        """Its name in reports."""
        return str(self)

    @property
    def ready(self) -> bool:
        """Whether it can be asked without a run: nothing is trained for it first."""
        return True

    @property
    def weighs_pairs(self) -> bool:
        """Whether the pairs that it labels carry the probability of their label."""
        return self.compares or self.unit == "log-odds"

    @property
    def proof(self) -> Proof | None:
        """How it shows that it can judge; None for a judge of whom this is not asked."""
        return None

    def check(self) -> None:
        """Raise UserError for a judge that could not be asked, before anything is run."""

    def check_prompts(self, prompts: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError where none of the prompts (rows of the lake) has what it needs."""

    def executes(self) -> Iterator[tuple[str, str]]:
        """What it executes of the user's: the key below its own ("" for itself), and what."""
        yield from ()

    def with_reward(self, reward: "JudgeSpec") -> "JudgeSpec":
        """The judge with a recipe's reward model where it names one without settings."""
        del reward
        return self

    def on_toy(self) -> "JudgeSpec":
        """The judge of a run on the toy model, which asks nobody over the network."""
        return self

    def seated(self, seats: Seats) -> "Seated":
        """The judge as it is asked. Raises UserError for a name of the lake that is not there."""
        del seats
        return Seated(spec=self)

    @property
    def trained_weights(self) -> str | None:
        """Which weights of a backbone are trained for it; None where nothing is."""
        return None

    def work(self, material: Material) -> Work:
        """What it takes to ask for so many verdicts, at most."""
        return Work(calls=material.verdicts, shards=not self.asked_as_a_whole)

    def open(self, opening: Opening) -> "AbstractContextManager[Judge | Comparer]":
        """Whoever answers, for as long as the block lasts; scores or compares as `compares` says,
        or both."""
        del opening
        raise AssertionError(f"{self} is not asked itself")

    def content(self) -> dict[str, str]:
        """What the settings stand for beyond themselves, as part of a version: the code of its
        kind, so that a change of one kind leaves the verdicts of all others as they are."""
        return {"code": code_version(type(self).__module__)}


@dataclass(frozen=True, kw_only=True)
class Seated:
    """A judge that can be asked.

    model: the model of the lake that judges, if one does.
    members: of several judges as one, each by its name; empty for a single judge.
    combination: how their verdicts become one, a value of combination.py. (Imported there only:
    what this module imports, every verdict depends on.)
    """

    spec: JudgeSpec
    model: ModelRef | None = None
    members: "Mapping[str, Seated]" = field(default_factory=dict)
    combination: Any = None

    def __str__(self) -> str:
        return str(self.spec)

    @property
    def compares(self) -> bool:
        """Whether it compares two completions, rather than score one."""
        return self.spec.compares

    def singles(self) -> "Iterator[Seated]":
        """The judges that it is made of, or itself."""
        yield from self.members.values() or [self]

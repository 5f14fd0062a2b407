"""The kind `lake-model`: a reward model or a ranker that the lake holds, `models@VERSION`.

`ModelJudge` is how any model of the lake judges in a step, one that the run has trained too.
Test: pytest tests/flows/judges/test_judges.py
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, Self

from pydantic import Field

from dapflow.storage import ModelRef, UserError
from dapflow.tasks.judging.judges.pointwise import RewardModelJudge
from dapflow.tasks.judging.judges.ranker import RankerJudge
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.spec import JudgeSpec, Opening, Seated, Seats, Unit
from dapflow.tasks.judging.work import of_scoring_model
from dapflow.tasks.step import Work, current_lake


class LakeModel(JudgeSpec):
    """A model of the lake, by its version."""

    unit: ClassVar[Unit] = "log-odds"
    kind: Literal["lake-model"] = "lake-model"
    model: str = Field(description="`models@VERSION`, of a reward model or a ranker")

    @classmethod
    def of_word(cls, word: str) -> Self:
        """The model that `models@VERSION` names."""
        return cls(model=word)

    def __str__(self) -> str:
        return self.model

    @property
    def compares(self) -> bool:
        """It scores, a ranker too: by comparing with a baseline answer."""
        return False

    @property
    def compares_with_a_baseline(self) -> bool:
        """Whether it is a ranker. Raises UserError where the lake does not hold it."""
        return _role(self._ref()) == "ranker"

    def seated(self, seats: Seats) -> Seated:
        """The model that the lake holds. Raises UserError when there is none, or it is no judge."""
        del seats
        ref = self._ref()
        return seated_model(ref, ranker=_role(ref) == "ranker")

    def _ref(self) -> ModelRef:
        found = current_lake().ref(self.model)
        if not isinstance(found, ModelRef) or _role(found) not in ("reward", "ranker"):
            raise UserError(
                f"{self.model} is not a reward model: `dapflow datasets --kind models` lists the "
                "models of the lake."
            )
        return found


class ModelJudge(JudgeSpec):
    """A model of the lake as it is asked."""

    in_memory: ClassVar[bool] = True
    unit: ClassVar[Unit] = "log-odds"
    kind: Literal["model"] = "model"
    version: str
    ranker: bool

    def __str__(self) -> str:
        return str(ModelRef("models", self.version, 1))

    @property
    def identity(self) -> str:
        """Its version."""
        return self.version

    @property
    def full_name(self) -> str:
        """Its version."""
        return self.version

    @property
    def compares(self) -> bool:
        """It scores."""
        return False

    @property
    def compares_with_a_baseline(self) -> bool:
        """Whether it is a ranker."""
        return self.ranker

    @property
    def scale(self) -> None:
        """Logits."""
        return

    def work(self, material: Material) -> Work:
        """Tokens that the model reads."""
        return of_scoring_model(material)

    @contextmanager
    def open(self, opening: Opening) -> Iterator[RankerJudge | RewardModelJudge]:
        """The model in this process."""
        assert opening.model is not None, "see seated_model"
        yield (
            RankerJudge(opening.lake, opening.model, opening.baselines)
            if self.ranker
            else RewardModelJudge(opening.lake, opening.model)
        )


def seated_model(ref: ModelRef, *, ranker: bool) -> Seated:
    """A model of the lake, ready to judge."""
    return Seated(spec=ModelJudge(version=ref.version, ranker=ranker), model=ref)


def _role(ref: ModelRef) -> str:
    return current_lake().model(ref)["role"]

"""The kind `reward-model`: a model that learns from preferences within the run, and then judges.

Test: pytest tests/tasks/training/reward/test_reward.py
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from dapflow.tasks.judging.spec import JudgeSpec, Seated, Seats, Unit


class RewardModel(JudgeSpec):
    """How a reward model is trained. As a recipe's judge, without settings of its own, it is the
    recipe's `reward`.
    """

    annotates: ClassVar[bool] = False
    unit: ClassVar[Unit] = "log-odds"
    kind: Literal["reward-model"] = "reward-model"
    form: Literal["pointwise", "pairwise"] = Field(
        default="pointwise", description="scores one answer, or compares two (RSO's ranker)"
    )
    parameters: Literal["head", "lora", "full"] = Field(
        default="head", description="which weights are trained"
    )
    layers: int = Field(
        default=0,
        ge=0,
        description="layers of the backbone that are computed: the head reads what comes out; 0 for all",
    )
    margins: Literal["none", "small", "large"] = Field(
        default="none", description="margin by rating (Llama 2)"
    )
    epochs: int = Field(default=1, ge=1, description="for lora and full")
    learning_rate: float = Field(
        default=1e-4, gt=0, allow_inf_nan=False, description="for lora and full"
    )
    batch_size: int = Field(
        default=8, ge=1, description="pairs per optimiser step, for lora and full"
    )
    lora_rank: int = Field(default=8, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.form == "pairwise" and (
            self.parameters == "head" or self.layers or self.margins != "none"
        ):
            raise ValueError(
                "form: pairwise trains a whole language model: set `parameters` to lora or full, "
                "and neither layers nor margins"
            )
        return self

    def __str__(self) -> str:
        return self.kind

    @property
    def compares(self) -> bool:
        """It scores, the ranker too: by comparing with a baseline answer."""
        return False

    @property
    def ready(self) -> bool:
        """It is trained first."""
        return False

    @property
    def compares_with_a_baseline(self) -> bool:
        """Whether it is a ranker."""
        return self.form == "pairwise"

    @property
    def trained_weights(self) -> str:
        """A head, an adapter, or all."""
        return self.parameters

    def with_reward(self, reward: JudgeSpec) -> JudgeSpec:
        """The recipe's reward model, unless it has settings of its own."""
        return reward if self == RewardModel() else self

    def on_toy(self) -> JudgeSpec:
        """As shallow as the toy model."""
        return self.model_copy(update={"layers": 1})

    def seated(self, seats: Seats) -> Seated:
        """The model, trained on the run's preferences."""
        return seats.reward_model(self)

    def content(self) -> dict[str, str]:
        """Settings alone: what trains the model has a version of its own."""
        return {}

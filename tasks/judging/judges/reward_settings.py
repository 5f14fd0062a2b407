"""`RewardModel`: what a reward model is and how one is trained, as a frozen value.

Test: pytest tests/tasks/training/reward/test_reward.py
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RewardModel(BaseModel):
    """How a reward model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["pointwise", "pairwise"] = Field(
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
        if self.kind == "pairwise" and (
            self.parameters == "head" or self.layers or self.margins != "none"
        ):
            raise ValueError(
                "kind: pairwise trains a whole language model: set `parameters` to lora or full, and neither layers nor margins"
            )
        return self

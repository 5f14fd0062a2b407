"""`Training` and `Rounds`, the settings of training as frozen values, and what follows from them:
rates and the dtype.

Test: pytest tests/tasks/training/test_settings.py
"""

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.dtypes import fast_dtype

MARGINS: dict[str, dict[str, float]] = {  # Llama 2, arXiv 2307.09288, table 27
    "none": {},
    "small": {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligible": 0.0},
    "large": {"significantly": 3.0, "better": 2.0, "slightly": 1.0, "negligible": 0.0},
}


class Stop(BaseModel):
    """When a training ends before its time, by groups that are set aside from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    log_ratio: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="stop when answers set aside have lost more nats than this against the "
        "reference, mean over chosen and rejected; null: never",
    )
    every: int = Field(
        default=10, ge=1, description="optimiser steps between looks at what is set aside"
    )
    set_aside: int = Field(
        default=16,
        ge=1,
        description="pairs that are not trained on, all of a prompt together, where log_ratio or "
        "pick=best asks for them",
    )


class Training(BaseModel):
    """How a policy is trained. A batch is `batch_size` groups (pairs) for each optimiser step;
    micro-batches only bound the memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[set[str]] = {
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "displacement_alarm_nats",
        "stop",
        "pick",
    }  # no part of a version; stop and pick are, by `content`, where they decide something

    learning_rate: float = Field(default=5e-6, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=16, ge=1)
    epochs: int = Field(default=1, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_learning_rate_share: float = Field(
        default=0.0, ge=0, le=1, description="where linear and cosine end, of learning_rate"
    )
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(
        default=0.0, ge=0, description="of matrices; norms and biases never decay"
    )
    betas: tuple[float, float] = (0.9, 0.999)
    tokens_per_microbatch: int = Field(default=2048, ge=1)
    checkpoint_every_steps: int = Field(default=20, ge=1)
    checkpoint_every_minutes: float = Field(default=10.0, gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    parameters: Literal["full", "lora", "head"] = Field(
        default="full", description="which weights are trained; head: the output head"
    )
    lora_rank: int = Field(default=16, ge=1)
    weights: Literal["auto", "master", "stochastic"] = Field(
        default="auto",
        description="of bf16 weights: an fp32 copy of each, or stochastic rounding (auto), "
        "which follows fp32 more closely",
    )
    moments: Literal["float32", "8bit"] = Field(
        default="float32", description="of Adam; 8bit: 6 bytes less of each weight (bitsandbytes)"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="compute each layer again in the backward pass: slower, less memory",
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        description="that share each batch; null: as `accelerate config` says, else one",
    )
    sharding: Literal["none", "full"] = Field(
        default="none", description="of several processes: each the whole model, or a part (FSDP)"
    )
    max_lag: int | None = Field(
        default=None,
        ge=0,
        description="optimiser steps that a sample may be old; null for any, 0 for on-policy",
    )
    displacement_alarm_nats: float = Field(
        default=10.0, gt=0, description="warn when chosen answers lose more than this on average"
    )

    stop: Stop = Stop()
    pick: Literal["last", "best"] = Field(
        default="last",
        description="the weights that are published: the last, or those that order most of the "
        "pairs set aside as the judge did (then the lower loss)",
    )

    @property
    def sets_aside(self) -> bool:
        """Whether anything is asked of groups that are not trained on."""
        return self.stop.log_ratio is not None or self.pick == "best"

    def content(self) -> dict[str, str]:
        """What is part of a version only where it is used."""
        used = {"stop": self.stop.model_dump_json(), "pick": self.pick}
        return used if self.sets_aside else {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sharding == "full" and self.weights == "stochastic":
            raise ValueError("sharding: full keeps fp32 weights, so `weights` must be master")
        if self.moments == "8bit" and self.weights == "stochastic":
            raise ValueError("moments: 8bit goes with `weights` master only")
        return self

    def steps(self, groups: int) -> int:
        """Optimiser steps on so many groups."""
        return self.epochs * -(-groups // self.batch_size)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Of step 0 .. steps - 1: a linear warm-up over warmup_steps, then the schedule."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
            self.schedule
        ]
        end = 1.0 if self.schedule == "constant" else self.final_learning_rate_share
        return self.learning_rate * (end + (1 - end) * share)

    def torch_dtype(self, device: torch.device) -> torch.dtype:
        return fast_dtype(device) if self.dtype == "auto" else getattr(torch, self.dtype)


class Rounds(BaseModel):
    """How an iteration of rounds goes: each trains on fresh samples, in one optimiser step unless
    it says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int = Field(default=24, ge=1, description="rounds of an iteration: sample, judge, train")
    prompts: int = Field(default=8, ge=1, description="prompts of a round")
    epochs: int = Field(default=1, ge=1, description="passes over a round's samples")
    minibatches: int = Field(
        default=1, ge=1, description="optimiser steps of a pass, each on its share of the samples"
    )

    @property
    def steps(self) -> int:
        """Optimiser steps of a round, at most."""
        return self.epochs * self.minibatches


def training_of(reward: RewardModel) -> Training:
    """A reward model's settings as those of a training, for lora and full: fp32, constant rate."""
    return Training(
        learning_rate=reward.learning_rate,
        batch_size=reward.batch_size,
        epochs=reward.epochs,
        dtype="float32",
    )

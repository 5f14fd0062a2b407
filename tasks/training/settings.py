"""`Training`, the settings of a training run as a frozen value, and what follows from them: learning rates and the dtype.

Test: pytest tests/tasks/training/test_settings.py
"""

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field


class Training(BaseModel):
    """How a policy is trained. A batch is `batch_size` groups (pairs) for each optimiser step; micro-batches only bound the memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=5e-6, gt=0)
    batch_size: int = Field(default=16, ge=1)
    epochs: int = Field(default=1, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_learning_rate_share: float = Field(default=0.0, ge=0, le=1, description="where linear and cosine end, of learning_rate")
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0, description="of matrices; norms and biases never decay")
    betas: tuple[float, float] = (0.9, 0.999)
    tokens_per_microbatch: int = Field(default=2048, ge=1)
    checkpoint_every_steps: int = Field(default=20, ge=1)
    checkpoint_every_minutes: float = Field(default=10.0, gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    parameters: Literal["full", "lora", "head"] = Field(default="full", description="which weights are trained; head: the output head")
    lora_rank: int = Field(default=16, ge=1)
    weights: Literal["master", "stochastic"] = Field(
        default="master", description="of bf16 weights: an fp32 copy of each, or stochastic rounding, which needs 4 bytes less of each"
    )
    gradient_checkpointing: bool = Field(default=False, description="compute each layer again in the backward pass: slower, less memory")
    displacement_alarm_nats: float = Field(default=10.0, gt=0, description="warn when chosen answers lose more than this on average")

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The rate of step 0 .. steps - 1: a linear warm-up over warmup_steps, then the schedule."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.schedule]
        end = 1.0 if self.schedule == "constant" else self.final_learning_rate_share
        return self.learning_rate * (end + (1 - end) * share)

    def torch_dtype(self, device: torch.device) -> torch.dtype:
        return fast_dtype(device) if self.dtype == "auto" else getattr(torch, self.dtype)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32: a CPU without such instructions is 8 times slower in bfloat16."""
    if device.type != "cpu":
        return torch.bfloat16
    features = torch.cpu.get_capabilities()
    native = any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32

"""The options of a loss: a small frozen value, and the kinds of numbers that it is made of.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Half = Annotated[float, Field(ge=0, lt=0.5)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Options(BaseModel):
    """Of a loss that has none. Each other loss has a subclass of its own (`Registered.options`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

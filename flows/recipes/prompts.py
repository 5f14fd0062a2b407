"""`Prompts`: which prompts an iteration trains on, as a frozen value; a step takes of it what it
needs.

Test: pytest tests/tasks/prompts/test_load.py
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dapflow.tasks.self_instruct.settings import SelfInstruct


class Prompts(BaseModel):
    """Which prompts an iteration trains on, and how many are kept aside to measure it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str = Field(
        default="shipped",
        description=(
            "`shipped`, `shipped-instructions` (600 with `constraints`), a .jsonl or .parquet file "
            "with `prompt`, or `hub:org/dataset`; optionally with `answer`, `unsafe` and "
            "`constraints`"
        ),
    )
    per_iteration: int = Field(default=48, ge=1, description="prompts each iteration trains on")
    held_out: int = Field(default=64, ge=1, description="prompts that are never trained on")
    schedule: Literal["next", "same", "self-instruct"] = Field(
        default="next",
        description=(
            "an iteration takes the next slice, the same, or prompts that the initial policy makes "
            "for it (`generate`)"
        ),
    )
    generate: SelfInstruct = Field(default=SelfInstruct(), description="how it makes them")

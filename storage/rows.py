"""A row of each relation of the lake, as Python reads it: the columns of `dapflow.storage.schema`
and their types.

    for row in lake.completions(ref): row["text"]
Values that a relation takes from a list of words are given as those words. Nullable are columns
that may be null in a row that this version writes. Test: pytest tests/storage/test_rows.py
"""

from typing import Literal, TypedDict

Split = Literal["train", "held_out"]
FinishReason = Literal["stop", "length", "refused"]
Outcome = Literal["scored", "win", "lose", "tie", "invalid", "refused", "over_budget"]
ModelRole = Literal["policy", "reward", "ranker", "endpoint"]


class PromptRow(TypedDict):
    """A row of `prompts`."""

    version: str
    id: str
    digest: str
    prompt: str
    source: str
    split: Split | None
    parents: list[str]
    answer: str | None
    unsafe: bool | None
    earlier: list[str] | None


class CompletionRow(TypedDict):
    """A row of `completions`."""

    version: str
    id: str
    prompt_id: str
    sample: int
    policy: str
    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int
    note: str | None


class VerdictRow(TypedDict):
    """A row of `verdicts`."""

    version: str
    id: str
    prompt_id: str
    completion_id: str
    other_id: str | None
    judge: str
    outcome: Outcome
    score: float | None
    note: str | None
    forward: float | None
    backward: float | None


class AcceptanceRow(TypedDict):
    """A row of `acceptances`."""

    version: str
    id: str
    prompt_id: str
    completion_id: str
    reward: float | None
    accepted: bool
    sweep: int | None
    note: str | None


class PairRow(TypedDict):
    """A row of `pairs`."""

    version: str
    id: str
    prompt_id: str
    chosen_id: str | None
    rejected_id: str | None
    prompt: str
    chosen: str
    rejected: str
    margin: float | None
    rating: str | None
    source: str
    dropped: str | None
    probability: float | None


class ModelRow(TypedDict):
    """A row of `models`."""

    version: str
    id: str
    name: str
    role: ModelRole
    parent: str | None
    reference: str | None
    path: str | None
    digest: str | None
    recipe: str | None


class MetricRow(TypedDict):
    """A row of `metrics`."""

    version: str
    id: str
    subject: str
    name: str
    step: int | None
    value: float | None
    low: float | None
    high: float | None
    unit: str | None
    note: str | None

"""A row of each relation of the lake, as Python reads it: the columns of `dapflow.storage.schema`
and their types.

    for row in lake.completions(ref): row["text"]
Values that a relation takes from a list of words are given as those words. Nullable are columns
that may be null in a row that this version writes. Test: pytest tests/storage/test_rows.py
"""

from typing import Literal, TypedDict, TypeGuard

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
    constraints: str | None
    earlier: list[str] | None


class CompletionRow(TypedDict):
    """A row of `completions`. A file's have no tokens, no policy and no seed. (Those in which a
    policy was asked for prompts belong to none: nobody reads their `prompt_id`, which is null.)
    """

    version: str
    id: str
    prompt_id: str
    sample: int
    policy: str | None
    text: str
    token_ids: list[int] | None
    logprobs: list[float] | None
    finish_reason: FinishReason
    seed: int | None
    note: str | None


class _Judged(TypedDict):
    version: str
    id: str
    prompt_id: str
    completion_id: str
    judge: str
    note: str | None
    forward: float | None
    backward: float | None


class ScoredRow(_Judged):
    """A row of `verdicts` about one completion."""

    outcome: Literal["scored"]
    score: float
    other_id: None


class ComparedRow(_Judged):
    """A row of `verdicts` about a completion and another one; score: the probability that it is
    the better one.
    """

    outcome: Literal["win", "lose", "tie"]
    score: float
    other_id: str


class UndecidedRow(_Judged):
    """A row of `verdicts` that holds none."""

    outcome: Literal["invalid", "refused", "over_budget"]
    score: None
    other_id: str | None


VerdictRow = ScoredRow | ComparedRow | UndecidedRow
"""A row of `verdicts`: which kind, `outcome` says."""


def is_comparison(row: VerdictRow) -> TypeGuard[ComparedRow]:
    """Whether it says which of two completions is the better one, or that neither is."""
    return row["outcome"] in ("win", "lose", "tie")


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
    rejected: str | None
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

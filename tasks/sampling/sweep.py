"""Which temperature to sample at: the one whose best of N answers are best, on a few prompts (Llama
2, arXiv 2307.09288, section 3.2.3).

choose_temperature(completions and verdicts at each temperature, temperatures)  ->  metrics, of which `temperature` is the choice
Test: pytest tests/tasks/sampling/test_sweep.py
"""

from collections.abc import Collection, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, Lake, UserError
from dapflow.storage.rows import VerdictRow
from dapflow.tasks.step import Out, step

CHOICE = "temperature"


class Sweep(BaseModel):
    """Temperatures to try before each iteration's sampling. None: the recipe's own stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    temperatures: tuple[float, ...] = Field(
        default=(), description="for example [0.8, 1.0, 1.2]; empty: no sweep"
    )
    prompts: int = Field(
        default=16, ge=1, description="of the iteration's, on which they are tried"
    )


@step(
    "metrics",
    title="choose one of {temperatures}",
    expects=lambda temperatures, **_: len(temperatures) + 1,
    activity="measuring",
)
def choose_temperature(
    out: Out,
    completions: list[DatasetRef],
    verdicts: list[DatasetRef],
    temperatures: Sequence[float],
) -> None:
    """The mean over prompts of the best score at each temperature, and the temperature with the
    highest (of equals the lowest). Answers that were cut off take no part where some were not: a
    best answer is one that has ended."""
    ended = {
        row["id"]
        for ref in completions
        for row in out.lake.completions(ref)
        if row["finish_reason"] == "stop"
    }
    judged = those_that_ended([out.lake.verdicts(ref) for ref in verdicts], ended)
    best = [best_of_n(at_temperature) for at_temperature in judged]
    scored = [
        (mean, -temperature)
        for mean, temperature in zip(best, temperatures, strict=True)
        if mean is not None
    ]
    if not scored:
        raise UserError(
            "No answer of the temperature sweep could be judged: look at the verdicts' notes."
        )
    figures = [
        (f"best_of_n_reward at {temperature:g}", mean)
        for temperature, mean in zip(temperatures, best, strict=True)
    ]
    figures.append((CHOICE, -max(scored)[1]))
    out.write(
        0,
        [
            {"id": out.row_id(n), "subject": out.version, "name": name, "value": value}
            for n, (name, value) in enumerate(figures)
        ],
    )


def those_that_ended(
    verdicts: Sequence[Sequence[VerdictRow]], ended: Collection[str]
) -> Sequence[Sequence[VerdictRow]]:
    """The verdicts on completions that ended, of each temperature; all of them where none has at
    any.
    """
    kept = [
        [row for row in at_temperature if row["completion_id"] in ended]
        for at_temperature in verdicts
    ]
    return kept if any(kept) else verdicts


def best_of_n(verdicts: Sequence[VerdictRow]) -> float | None:
    """The mean over prompts of the highest score; None where nothing was scored."""
    best: dict[str, float] = {}
    for verdict in verdicts:
        if verdict["outcome"] == "scored":
            best[verdict["prompt_id"]] = max(
                verdict["score"], best.get(verdict["prompt_id"], verdict["score"])
            )
    return fmean(best.values()) if best else None


def chosen_temperature(lake: Lake, sweep: DatasetRef) -> float:
    """What `choose_temperature` has chosen."""
    [temperature] = [row["value"] for row in lake.metrics(sweep) if row["name"] == CHOICE]
    assert temperature is not None
    return temperature

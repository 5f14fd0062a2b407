"""How far rejection sampling has come: what was accepted, against the tilted policy that it is to be
a sample of, pi(y) exp(r(y) / beta) / Z (RSO, arXiv 2309.06657, eq. 3 and Algorithm 1).

    measure_tilting(policy, acceptances, acceptance)  ->  metrics about the policy that learned from it
Test: pytest tests/tasks/pairing/test_tilting.py
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.figures import Figure, mean, rows_of
from dapflow.tasks.pairing.acceptance import Acceptance
from dapflow.tasks.step import Out, step

_NONE = "no prompt had two candidates with a score"
_LATE = (
    "most candidates were accepted after the first sweep: they are no draws from the tilted policy"
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate that could take part. sweep: in which it was accepted; None: in none."""

    reward: float
    sweep: int | None


@step(
    "metrics",
    title="measure what was accepted",
    expects=lambda **_: 3,
    activity="measuring",
)
def measure_tilting(
    out: Out, policy: ModelRef, acceptances: DatasetRef, acceptance: Acceptance, seed: int
) -> None:
    """Three figures with intervals over prompts. `first_sweep_share`: of the accepted candidates,
    those that came in the first sweep, the only draws from the tilted policy.
    `effective_candidates`: (sum w)^2 / sum w^2 of a prompt's w = exp(r / beta). `tilt_reached`: by
    how much the accepted score more than the candidates, over what the tilted policy would.
    """
    prompts = defaultdict[str, list[Candidate]](list)
    for row in out.lake.acceptances(acceptances):
        if row["note"] is None and row["reward"] is not None:
            candidate = Candidate(reward=row["reward"], sweep=row["sweep"])
            prompts[row["prompt_id"]].append(candidate)
    figures = tilting(prompts, acceptance, seed)
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def tilting(
    prompts: Mapping[str, Sequence[Candidate]], acceptance: Acceptance, seed: int
) -> list[Figure]:
    """The figures. prompts: the candidates that could take part, by prompt."""
    rewards = {prompt: [row.reward for row in rows] for prompt, rows in prompts.items()}
    beta = acceptance.in_scores(rewards.values()).beta
    shares, sizes = dict[str, float](), dict[str, float]()
    gained, possible = dict[str, float](), dict[str, float]()
    for prompt, rows in prompts.items():
        scores, best = rewards[prompt], max(rewards[prompt])
        weights = [math.exp((score - best) / beta) for score in scores]
        total = sum(weights)
        accepted = [row for row in rows if row.sweep is not None]
        shares[prompt] = fmean(row.sweep == 0 for row in accepted)
        sizes[prompt] = total**2 / sum(weight**2 for weight in weights)
        gained[prompt] = fmean(row.reward for row in accepted) - fmean(scores)
        possible[prompt] = fmean(scores, weights) - fmean(scores)
    first = mean("first_sweep_share", shares, seed, _NONE, bounded=True)
    late = first.value is not None and first.value < 0.5
    return [
        replace(first, note=_LATE) if late else first,
        mean("effective_candidates", sizes, seed, _NONE),
        _ratio(gained, possible),
    ]


def _ratio(gained: Mapping[str, float], possible: Mapping[str, float]) -> Figure:
    """The share of the way, of all prompts together: of single ones it has no mean."""
    way = sum(possible.values())
    if way <= 0:
        return Figure(name="tilt_reached", value=None, note="no candidate scored more than another")
    return Figure(name="tilt_reached", value=sum(gained.values()) / way)

"""What came of several methods under the same seeds, as plain values: the closing table, measured.
Read from the lake, nothing is run.

closing_table(lake, outcomes)  ->  {"initial": {...}, "methods": [{"method": ..., "win_rate": {...}, "figures": {...}, "runs": [...]}, ...]}
Test: pytest tests/flows/report/test_methods_table.py
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from dapflow.flows.report.figures import metric_rows
from dapflow.flows.report.find import find_policy
from dapflow.flows.report.outcome import known_from_training
from dapflow.storage import Lake
from dapflow.tasks.evaluation.contests import NOT_JUDGED, by_comparison, by_scores, prompt_wins
from dapflow.tasks.figures import ONE_PROMPT
from dapflow.tasks.statistics import Floats, bootstrap_share, difference_by, grid_share

Row = dict[str, Any]
Wins = Mapping[int, Mapping[str, float]]
"""Seed -> held-out prompt -> how much of it was won, 0 to 1, or by how much more than by another
method.
"""
INITIAL = "initial"
_LAST = ("judge_reward_after", "kl_to_initial", "length_after", "truncated_after", "people_prompts")
_SUMMED = ("tokens_sampled", "verdicts", "api_answers", "api_calls", "api_usd")
_AVERAGED = ("people_share", "own_share", "mean_lag", "renewed_share")
_ROWS = "trained_rows"
_MOST = ("models_in_memory", "model_bytes")
_SEED = 0  # of the bootstrap: the same runs give the same intervals


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A method under one seed: the policy of each iteration, or why there is none; and what a
    person types to have it done again.
    """

    method: str
    seed: int
    command: str
    policies: tuple[str, ...] = ()
    failed: str | None = None


def closing_table(lake: Lake, outcomes: Sequence[Outcome]) -> Row:
    """The initial policy's figures and a row for each method, in the order they come: means over
    seeds, win rates against the initial policy with their intervals over prompts and seeds, and by
    how much each wins more than the first method, paired."""
    runs = [(one, {} if one.failed else run_figures(lake, one.policies)) for one in outcomes]
    wins = {
        (one.method, one.seed): wins_over_initial(lake, one.policies[-1])
        for one in outcomes
        if not one.failed
    }
    names = list(dict.fromkeys(one.method for one in outcomes))
    by_method: dict[str, Wins] = {
        name: {seed: found for (own, seed), found in wins.items() if own == name} for name in names
    }
    rows: list[Row] = []
    for name in names:
        own = [(one, figures) for one, figures in runs if one.method == name]
        rows.append(
            {
                "method": name,
                "failed": [{"seed": one.seed, "why": one.failed} for one, _ in own if one.failed],
                "win_rate": interval_of(by_method[name], shares=True),
                "difference": None
                if name == names[0]
                else interval_of(differences(by_method[name], by_method[names[0]]), shares=False),
                "figures": means([figures for one, figures in own if not one.failed]),
                "runs": [
                    {
                        "seed": one.seed,
                        "policies": list(one.policies),
                        "command": one.command,
                        "figures": figures,
                    }
                    for one, figures in own
                ],
            }
        )
    return {"initial": _initial(lake, [one for one in outcomes if not one.failed]), "methods": rows}


def run_figures(lake: Lake, policies: Sequence[str]) -> dict[str, float | None]:
    """A run as a whole: what its last policy is, and what all iterations took. None where it was
    not measured.
    """
    metrics = [
        {row["name"]: row["value"] for row in metric_rows(lake, find_policy(lake, one))}
        for one in policies
    ]
    told = {
        name: [one.get(name) for one in metrics]
        for name in (*_LAST, *_SUMMED, *_AVERAGED, _ROWS, *_MOST)
    }
    figures: dict[str, float | None] = {name: told[name][-1] for name in _LAST}
    for name in _SUMMED:
        known = [value for value in told[name] if value is not None]
        figures[name] = sum(known) if len(known) == len(policies) else None
    own = [
        rows and share and rows * share
        for rows, share in zip(told[_ROWS], told["own_share"], strict=True)
    ]
    figures |= {
        name: mean_of_rows(told[name], own if name == "mean_lag" else told[_ROWS])
        for name in _AVERAGED
    }
    for name in _MOST:
        figures[name] = max((value for value in told[name] if value is not None), default=None)
    catalogue = lake.catalogue()
    behind = {policies[-1], *catalogue.learned_from(policies[-1])}
    return figures | {"seconds": sum(catalogue.versions[version].seconds for version in behind)}


def mean_of_rows(values: Sequence[float | None], rows: Sequence[float | None]) -> float | None:
    """The mean over the rows that all iterations trained on, of those that have the figure."""
    known = [
        (value, count)
        for value, count in zip(values, rows, strict=True)
        if value is not None and count
    ]
    return (
        sum(value * count for value, count in known) / sum(count for _, count in known)
        if known
        else None
    )


def wins_over_initial(lake: Lake, policy: str) -> dict[str, float]:
    """How much of each held-out prompt a policy wins against the initial one, by prompt; those that
    training knows are left out.
    """
    catalogue = lake.catalogue()
    parents = catalogue.parents.get(find_policy(lake, policy).metrics, {})
    measured = [one for one in parents.values() if catalogue.versions[one].activity == "measuring"]
    rows = lake.rows(
        "SELECT version, parameters FROM versions WHERE version IN (SELECT unnest(?))", [measured]
    )
    against = next(
        (row["version"] for row in rows if _baseline(row["parameters"]) == INITIAL),
        None,
    )
    if against is None:
        return {}
    judged = catalogue.parents[against]
    aside = known_from_training(lake, judged)
    sides = [
        [row for row in lake.verdicts(judged[role]) if row["prompt_id"] not in aside]
        if role in judged
        else []
        for role in ("contest", "judged_theirs", "judged_ours")
    ]
    return prompt_wins(
        by_comparison(sides[0]) if "contest" in judged else by_scores(sides[1], sides[2])
    )


def _baseline(parameters: str) -> str | None:
    """Whom a step measured against, from its parameters; None where it measured something else."""
    return json.loads(parameters).get("baseline")


def interval_of(values: Wins, shares: bool) -> Row:
    """The mean with its 95 % interval, of several seeds over prompts and seeds, for another
    comparison would have others of both. shares: the values are wins, 0 to 1, and not differences
    of them."""
    prompts = sorted({prompt for of_seed in values.values() for prompt in of_seed})
    told: Row = {
        "value": None,
        "low": None,
        "high": None,
        "prompts": len(prompts),
        "seeds": len(values),
    }
    if not prompts:
        return told | {"note": NOT_JUDGED}
    judged = sorted(seed for seed, wins in values.items() if wins)
    grid = np.array([[values[seed].get(prompt, math.nan) for seed in judged] for prompt in prompts])
    if len(prompts) == 1:
        return told | {"value": float(np.nanmean(grid)), "note": ONE_PROMPT}
    mean, low, high = _interval(grid) if shares else difference_by(_interval, grid)
    return told | {"value": mean, "low": low, "high": high, "note": None}


def _interval(grid: Floats) -> tuple[float, float, float]:
    """The mean of shares of (prompts, seeds) and its 95 % interval."""
    return bootstrap_share(grid[:, 0].tolist(), _SEED) if grid.shape[1] == 1 else grid_share(grid)


def differences(ones: Wins, others: Wins) -> Wins:
    """By how much more each prompt was won, where both have it under the same seed."""
    return {
        seed: {
            prompt: ones[seed][prompt] - others[seed][prompt]
            for prompt in ones[seed].keys() & others[seed].keys()
        }
        for seed in ones.keys() & others.keys()
    }


def means(runs: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Over the seeds that have the figure."""
    told: dict[str, list[float]] = {}
    for one in runs:
        for name, value in one.items():
            told.setdefault(name, []).extend([] if value is None else [value])
    return {name: fmean(values) if values else None for name, values in told.items()}


def _initial(lake: Lake, outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Reward and length of the initial policy's answers: what the first iteration began with, once
    for each seed.
    """
    first = {one.seed: one.policies[0] for one in reversed(outcomes)}
    rows = [
        {row["name"]: row["value"] for row in metric_rows(lake, find_policy(lake, policy))}
        for policy in first.values()
    ]
    return means(
        [
            {
                name: one.get(name)
                for name in ("judge_reward_before", "length_before", "truncated_before")
            }
            for one in rows
        ]
    )

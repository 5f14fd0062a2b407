"""A report as plain values: everything that the page, the terminal and `--json` show of an
iteration. Read from the lake, nothing is run.

report_of(lake, found)  ->  {"outcome": ..., "examples": [...], "metrics": [...], "stages": [...], "steps": [...], ...}
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from dapflow.flows.report import account, figures, outcome
from dapflow.flows.report.find import Found, find
from dapflow.storage import Lake
from dapflow.tasks.statistics import wilson

Row = dict[str, Any]
_BANDS, _PER_BAND = (
    5,
    8,
)  # groups of prompts by how much longer the new answer is, and how many prompts it takes to draw them


def report_of(lake: Lake, found: Found, shown: int = 12) -> Row:
    """All about one iteration. shown: how many examples."""
    metrics = figures.metric_rows(lake, found)
    by_name = {row["name"]: row for row in metrics}
    known = outcome.known_from_training(lake, found.parts)
    judged = outcome.prompt_rows(lake, found, known)
    made = account.steps(lake, found)
    judges = account.judges(lake, found)
    held_out = lake.ref(found.parts["held_out"]).rows if "held_out" in found.parts else 0
    return {
        "recipe": found.recipe,
        "iteration": found.iteration,
        "label": found.label,
        "series": found.recipe,
        "policy": found.policy,
        "policy_before": lake.catalogue()
        .parents.get(found.parts.get("before", ""), {})
        .get("policy"),
        "measured": found.metrics,
        "outcome": _outcome(by_name, held_out, [row["win"] for row in judged]),
        "cost": account.cost(made),
        "warnings": account.thoughts(lake, found)
        + account.warnings(judges, by_name, len(judged), held_out, len(known)),
        "judges": judges,
        "examples": outcome.examples(lake, found, judged, shown),
        "metrics": metrics,
        "curves": figures.curves(lake, found),
        "scores": {
            side: [row[f"{side}_score"] for row in judged if row[f"{side}_score"] is not None]
            for side in ("before", "after")
        },
        "by_length": by_length(judged),
        "semantics": account.semantics(lake, found, by_name),
        "stages": account.stages(lake, found, known),
        "steps": made,
        "parts": dict(found.parts),
    }


def gather(lake: Lake, names: Sequence[str], shown: int = 12) -> list[Row]:
    """The runs of these names, each with its `iterations`. Raises UserError for a name that stands
    for nothing measured.
    """
    runs = [find(lake, name) for name in names]
    made = [
        run_of(found[-1]) | {"iterations": [report_of(lake, one, shown) for one in found]}
        for found in runs
    ]
    _tell_apart(made)
    return made


def _tell_apart(runs: Sequence[Row]) -> None:
    """Iterations of one name get that of their run as well, and so do the curves of one recipe with
    other settings: they are no continuation.
    """
    labels = Counter(one["label"] for run in runs for one in run["iterations"])
    choices: dict[str, list[Any]] = {}
    for run in runs:
        if run["settings"] not in (same := choices.setdefault(run["recipe"], [])):
            same.append(run["settings"])
    for run in runs:
        for one in run["iterations"]:
            said = f"{{}} ({run['run'][:8]})" if run["run"] else "{}"
            one["label"] = said.format(one["label"]) if labels[one["label"]] > 1 else one["label"]
            one["series"] = (
                said.format(one["series"]) if len(choices[run["recipe"]]) > 1 else one["series"]
            )


def run_of(found: Found) -> Row:
    """What is known about the run, with what reproduces it; of a policy that no run has recorded,
    nothing.
    """
    if found.run is None:
        return {"run": None, "recipe": found.label, "command": None, "software": {}, "settings": {}}
    run = found.run
    took = (run["ended_at"] - run["started_at"]).total_seconds() if run["ended_at"] else None
    return {
        "run": run["run"],
        "recipe": run["recipe"],
        "state": run["state"],
        "note": run["note"],
        "host": run["host"],
        "started_at": run["started_at"].isoformat(timespec="seconds"),
        "seconds": took,
        "command": run.get("command"),
        "software": json.loads(run["software"])
        if run.get("software")
        else {"dapflow": run["code"]},
        "settings": found.settings,
    }


def _outcome(metrics: Mapping[str, Row], held_out: int, wins: Sequence[float]) -> Row:
    won = metrics.get("win_rate")
    if won is None:
        sentence = "There is no win rate among the metrics of this iteration."
        return {"verdict": "not measured", "sentence": sentence, "held_out_prompts": held_out}
    if won["value"] is None:
        sentence = f"There is no win rate: {won['note']}."
        return {
            "verdict": "cannot tell",
            "sentence": sentence,
            "judged_prompts": 0,
            "held_out_prompts": held_out,
        }
    value = won["value"]
    low, high = (
        value if won[key] is None or math.isnan(won[key]) else won[key] for key in ("low", "high")
    )
    low, high = (0.0, 1.0) if won["low"] is None else (max(low, 0.0), min(high, 1.0))
    prompts = int(metrics["judged_prompts"]["value"]) if "judged_prompts" in metrics else held_out
    verdict = outcome.verdict_of(low, high)
    told = {"verdict": verdict, "win_rate": value, "win_rate_low": low, "win_rate_high": high}
    told |= {"judged_prompts": prompts, "held_out_prompts": held_out}
    spread = stdev(wins) if len(wins) > 1 else None
    return told | {"sentence": outcome.sentence_of(verdict, prompts, value, low, high, spread)}


def by_length(judged: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The win rate, with Wilson's interval, in groups of prompts by how many tokens longer the new
    answer is; equal lengths stay together.
    """
    wins: dict[float, list[float]] = {}
    for row in judged:
        if row["after_tokens"] is not None and row["before_tokens"] is not None:
            wins.setdefault(row["after_tokens"] - row["before_tokens"], []).append(row["win"])
    total = sum(map(len, wins.values()))
    bands: dict[int, list[float]] = {}
    before = 0
    for length in sorted(wins):
        bands.setdefault(int(_BANDS * (before + len(wins[length]) / 2) / total), []).append(length)
        before += len(wins[length])
    if len(bands) < 2 or total < _PER_BAND * _BANDS:
        return []
    told = []
    for lengths in bands.values():
        part = [win for length in lengths for win in wins[length]]
        low, high = wilson(sum(part), len(part))
        told.append(
            {
                "least": lengths[0],
                "most": lengths[-1],
                "prompts": len(part),
                "win_rate": sum(part) / len(part),
                "low": low,
                "high": high,
            }
        )
    return told

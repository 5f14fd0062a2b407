"""`dapflow plan`: what a run would do, found out by walking through the flow without running a
step, and about how long it would take.

make_plan(recipe, iterations, lake)  ->  {"steps": [{"name": ..., "tokens": {...}, ...}], "tokens": ..., "paid": ..., "seconds": ...}
How much a step does stands beside it (`@step(..., work=...)`). Test: pytest
tests/flows/planning/test_plan.py
"""

import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from dapflow.flows.align import chain
from dapflow.flows.iteration import iterate
from dapflow.flows.planning.paid_calls import paid_calls
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import Lake
from dapflow.tasks.models.dtypes import fast_dtype
from dapflow.tasks.models.names import resolve
from dapflow.tasks.step import Call, planning

# Multiplications and additions per token and weight, and the share of the machine's matrix-product
# rate that each kind of work reaches (measured with SmolLM2-135M on two cores). A plan is an
# estimate, not a promise.
_FLOPS = {"sampled": 2.0, "scored": 2.0, "trained": 8.0}
_SHARE = {"sampled": 0.6, "scored": 0.6, "trained": 0.6}


def make_plan(recipe: Recipe, iterations: int, lake: Lake | None) -> dict[str, Any]:
    """Steps with their versions and whether the lake holds them, tokens at most, models, judge
    calls and seconds. Runs nothing.
    """
    with planning() as calls:
        list(chain(recipe, iterations, iterate.fn))
    weights, rate = _weights(recipe), matmul_rate()
    distinct = {call.version: call for call in calls}.values()
    made = {call.version for call in distinct if lake is not None and lake.find(call.version)}
    steps, to_run = list[dict[str, Any]](), list[Call]()
    for call in calls:
        cached = call.version in made
        made.add(call.version)
        to_run += [] if cached else [call]
        steps.append(_step(call, cached, rate / weights))
    return {
        "recipe": recipe.name,
        "iterations": iterations,
        "models": _models(recipe, weights),
        "steps": steps,
        "tokens": {kind: sum(step["tokens"].get(kind, 0) for step in steps) for kind in _FLOPS},
        "judge_calls": sum(call.work.calls for call in distinct),
        "paid": paid_calls(to_run, lake),
        "seconds": round(sum(step["seconds"] for step in steps)),
        "gflops": round(rate / 1e9),
    }


def _step(call: Call, cached: bool, rate: float) -> dict[str, Any]:
    """A line of the plan. rate: operations per second and weight of the model."""
    tokens = {} if cached else call.work.tokens
    seconds = sum(count * _FLOPS[kind] / (rate * _SHARE[kind]) for kind, count in tokens.items())
    return {
        "name": call.title,
        "version": f"{call.kind}@{call.version}",
        "from": dict(call.parents),
        "cached": cached,
        "step": call.step,
        "activity": call.activity,
        "rows": call.rows,
        "calls": 0 if call.work.requests is None else call.work.requests.count,
        "shards": call.work.shards,
        "tokens": tokens,
        "seconds": round(seconds, 1),
    }


def print_plan(console: Console, plan: dict[str, Any]) -> None:
    """The plan as a table."""
    names = {step["version"].split("@")[1]: step["name"] for step in plan["steps"]}
    table = Table(
        title=f"{plan['recipe']}, {plan['iterations']} iteration(s)",
        title_justify="left",
        show_edge=False,
    )
    for column in ("step", "from", "tokens at most", "about"):
        table.add_column(column)
    for step in plan["steps"]:
        parents = ", ".join(dict.fromkeys(names[version] for version in step["from"].values()))
        tokens = ", ".join(f"{count:,} {kind}" for kind, count in step["tokens"].items())
        table.add_row(
            step["name"],
            parents,
            tokens,
            "cached" if step["cached"] else f"{step['seconds']:.0f} s",
        )
    console.print(table)
    for name, role in plan["models"].items():
        console.print(f"loads {name}: {role}", highlight=False)
    console.print(f"judge calls: {plan['judge_calls']:,}, {_paid(plan['paid'])}", highlight=False)
    minutes = plan["seconds"] / 60
    console.print(
        f"about {minutes:.0f} min, at the {plan['gflops']} GFLOP/s measured on this machine just "
        "now",
        highlight=False,
    )


def _paid(paid: dict[str, Any]) -> str:
    if not paid["calls"]:
        return (
            "all answered on this machine, none paid" if not paid["models"] else "none to be paid"
        )
    known = f", {paid['known']:,} of them known already" if paid["known"] else ""
    cost = (
        "at a cost that nobody knows"
        if paid["usd"] is None
        else f"about ${paid['usd']:{'.2f' if paid['usd'] >= 1 else '.4f'}} at most"
    )
    prices = ", ".join(f"{model}: {source}" for model, source in paid["models"].items())
    return f"{paid['calls']:,} of them over the network{known}, {cost} ({prices})"


def matmul_rate() -> float:
    """Floating-point operations per second of a matrix product in the dtype that models run in
    here, measured for about 0.3 s.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    a = torch.randn(768, 768, device=device).to(fast_dtype(device))
    best, until = 0.0, time.perf_counter() + 0.3
    while time.perf_counter() < until:
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * 768**3 / (time.perf_counter() - start))
    return best


def _weights(recipe: Recipe) -> int:
    config = AutoConfig.from_pretrained(resolve(recipe.policy).path, local_files_only=True)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def _models(recipe: Recipe, weights: int) -> dict[str, str]:
    roles = [f"policy and reference, {weights / 1e6:,.1f} M weights"]
    judges = {"reward model": recipe.labels_by, "evaluating judge": recipe.evaluation.judge}
    for role, judge in judges.items():
        if judge is not None and judge.trained_weights is not None:
            roles.append(f"backbone of the {role} ({judge.trained_weights})")
    return {recipe.policy: "; ".join(roles)}

"""`dapflow plan`: what a run would do, found out by walking through the flow without running a
step, and about how long it would take.
"""

import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from dapflow.flows.align import chain
from dapflow.flows.iteration import iterate
from dapflow.flows.planning.paid_calls import paid_calls, verdicts_of
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import Lake
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.policy import SelfJudge
from dapflow.tasks.judging.judges.program import Program
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.dtypes import fast_dtype
from dapflow.tasks.models.names import resolve
from dapflow.tasks.pairing.pairs import pairs_of
from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE
from dapflow.tasks.prompts.sources import read_source
from dapflow.tasks.step import Call, planning

# Multiplications and additions per token and weight, and the share of the machine's matrix-product
# rate that each kind of work reaches (measured with SmolLM2-135M on two cores). A plan is an
# estimate, not a promise.
_FLOPS = {"sampled": 2.0, "scored": 2.0, "trained": 8.0}
_SHARE = {"sampled": 0.6, "scored": 0.6, "trained": 0.6}
_CHARACTERS_PER_TOKEN = 4.0
_PROMPT_TOKENS = 60
_ASKED_TOKENS = 400  # of a judge's prompt, with the material in it


def make_plan(recipe: Recipe, iterations: int, lake: Lake | None) -> dict[str, Any]:
    """Steps with their versions and whether the lake holds them, tokens at most, models, judge
    calls and seconds. Runs nothing.
    """
    with planning() as calls:
        list(chain(recipe, iterations, iterate.fn))
    weights = _weights(recipe)
    rate = matmul_rate()
    steps: list[dict[str, Any]] = []
    seen: set[str] = set()
    to_run: list[Call] = []
    for call in calls:
        cached = call.version in seen or (lake is not None and lake.find(call.version) is not None)
        seen.add(call.version)
        to_run += [] if cached else [call]
        work = {} if cached else tokens_of(recipe, call)
        seconds = sum(
            tokens * _FLOPS[kind] * weights / (rate * _SHARE[kind]) for kind, tokens in work.items()
        )
        step = {
            "name": call.title,
            "version": f"{call.kind}@{call.version}",
            "from": dict(call.parents),
            "cached": cached,
        }
        step |= {
            "step": call.step,
            "rows": call.rows,
            "calls": _judged(call) if isinstance(call.arguments.get("by"), LLM) else 0,
        }
        steps.append(step | {"tokens": work, "seconds": round(seconds, 1)})
    return {
        "recipe": recipe.name,
        "iterations": iterations,
        "models": _models(recipe, weights),
        "steps": steps,
        "tokens": {kind: sum(step["tokens"].get(kind, 0) for step in steps) for kind in _FLOPS},
        "judge_calls": sum(
            _judged(call) for call in {call.version: call for call in calls}.values()
        ),
        "paid": paid_calls(recipe, to_run, lake),
        "seconds": round(sum(step["seconds"] for step in steps)),
        "gflops": round(rate / 1e9),
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
        f"about {minutes:.0f} min, at the {plan['gflops']} GFLOP/s measured on this machine just now",
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


def _judged(call: Call) -> int:
    """Questions that a step puts to its judge."""
    by = call.arguments.get("by")
    if isinstance(by, LLM):
        return verdicts_of(call) * by.calls_per_verdict
    if isinstance(by, SelfJudge):
        return call.rows * by.calls_per_verdict
    return (
        verdicts_of(call)
        if call.step in ("judge", "train_online") or isinstance(by, Program | Human)
        else 0
    )


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
    if isinstance(recipe.judge, RewardModel):
        roles.append(f"backbone of the reward model ({recipe.reward.parameters})")
    if isinstance(recipe.evaluation.judge, RewardModel):
        roles.append(f"backbone of the evaluating judge ({recipe.evaluation.judge.parameters})")
    return {recipe.policy: "; ".join(roles)}


def tokens_of(recipe: Recipe, call: Call) -> dict[str, int]:
    """Tokens a step computes, at most, by kind of work."""
    arguments = call.arguments
    if call.step == "sample":
        return {
            "sampled": arguments["prompts"].rows
            * arguments["sampling"].n
            * arguments["sampling"].max_tokens
        }
    if call.step == "ask_for_prompts":
        return {"sampled": call.rows * arguments["settings"].sampling.max_tokens}
    if (
        call.step == "judge"
        and arguments["model"] is not None
        and not isinstance(arguments["by"], SelfJudge)
    ):
        return {
            "scored": arguments["completions"].rows * recipe.sampling.max_tokens
            + arguments["prompts"].rows * _PROMPT_TOKENS
        }
    if call.step == "measure_divergence":  # under both policies
        return {
            "scored": 2
            * arguments["completions"].rows
            * (recipe.evaluation.sampling.max_tokens + _PROMPT_TOKENS)
        }
    if call.step == "measure_displacement":
        return {"scored": 2 * arguments["most"] * (2 * recipe.sampling.max_tokens + _PROMPT_TOKENS)}
    if isinstance(asks := arguments.get("by"), SelfJudge):
        return {
            "sampled": call.rows * asks.calls_per_verdict * asks.answer_tokens,
            "scored": call.rows * asks.calls_per_verdict * _ASKED_TOKENS,
        }
    if call.step == "train_reward_model":
        records = [
            preference(record)
            for record in read_source(recipe.preferences.source, PREFERENCES_FILE)
        ]
        characters = sum(
            len(record["prompt"] + record["chosen"] + record["rejected"]) for record in records
        )
        share = (arguments["labelled"].rows + arguments["test"].rows) / len(records)
        return {"scored": round(share * characters / _CHARACTERS_PER_TOKEN)}
    if call.step == "train":
        accepted = (
            min(recipe.acceptance.keep, recipe.sampling.n)
            if recipe.acceptance.rule == "rso"
            else recipe.sampling.n
        )
        pairs = sum(ref.rows for ref in arguments["pairs"])
        if recipe.acceptance.rule == "rso":
            pairs = (
                recipe.prompts.per_iteration
                * pairs_of(recipe.pairing.rule, accepted)
                * len(arguments["pairs"])
            )
        return {
            "trained": pairs
            * (2 * recipe.sampling.max_tokens + _PROMPT_TOKENS)
            * recipe.training.epochs
        }
    if call.step == "train_on_answers":
        return {
            "trained": arguments["answers"].rows
            * (recipe.sampling.max_tokens + _PROMPT_TOKENS)
            * recipe.training.epochs
        }
    if call.step == "train_online":
        rounds, sampling = arguments["rounds"], arguments["sampling"]
        answers = rounds.count * min(rounds.prompts, arguments["prompts"].rows) * sampling.n
        models = 2 if arguments["loss"].registered.needs_values else 1
        trained = answers * (sampling.max_tokens + _PROMPT_TOKENS) * rounds.epochs * models
        return {"sampled": answers * sampling.max_tokens, "trained": trained}
    return {}

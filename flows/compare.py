"""`compare`: several methods as one flow, on the same prompts, from the same initial policy, by the
same judge, within the same budget.

compare(methods=("rso", "iterative-dpo", "./mine.yaml"), iterations=2, budget_tokens=20_000, seeds=3, lake="./lake")
Each method under each seed is a run of `align`: what they have in common is one version in the
lake, so it is done once; started again, it goes on from there. Test: pytest
tests/flows/cli/test_compare.py
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from dapflow.flows.align import align, chosen, command_of
from dapflow.flows.planning.token_budget import within
from dapflow.flows.recipes.changes import at
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.report.compare import differences
from dapflow.flows.report.drawing.methods_table import closing_page, markdown
from dapflow.flows.report.drawing.page import write
from dapflow.flows.report.methods_table import INITIAL, Outcome, closing_table
from dapflow.storage import Lake, UserError
from dapflow.tasks.step import use_lake
from dapflow.tasks.step.progress import reporter

_PROMPTS = (
    "source",
    "held_out",
)  # what of the prompts must be the same; how many an iteration takes is a method's own choice


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A method that takes part: what the table calls it, the name or file it was asked for by, the
    settings it runs with, those of them that fit it into the budget, and how many tokens it samples
    for training at most."""

    label: str
    name: str
    recipe: Recipe
    settings: tuple[str, ...]
    fitted: tuple[str, ...]
    tokens: int


def _title() -> str:
    return f"compare {', '.join(flow_run.parameters['methods'])}"


@flow(name="compare", flow_run_name=_title, persist_result=False)
def compare(
    methods: tuple[str, ...],
    iterations: int = 1,
    budget_tokens: int | None = None,
    seeds: int = 1,
    settings: tuple[str, ...] = (),
    toy: bool = False,
    lake: str = "lake",
) -> Any:
    """Run every method under every seed, and measure them side by side. One that fails leaves its
    reason, and the others go on.

    methods: names of recipes or files with one; budget_tokens: how many tokens each may sample for
    training, in all iterations, under one seed (None: as many as its recipe says); settings:
    `key=value`, for all of them. Returns the closing table and where its page is. Raises UserError
    for what the user can put right before anything is run.
    """
    with Lake(lake) as opened, use_lake(opened):
        entrants = entrants_of(methods, iterations, budget_tokens, settings, toy)
    outcomes: list[Outcome] = []
    for place in range(seeds):
        for one in entrants:
            outcomes.append(_run(one, one.recipe.seed + place, iterations, toy, lake))
    with Lake(lake) as opened:
        told = closing_table(opened, outcomes) | {
            "methods_asked": list(methods),
            "iterations": iterations,
            "seeds": seeds,
            "budget_tokens": budget_tokens,
            "toy": toy,
            "tokens_at_most": {one.label: one.tokens for one in entrants},
            "settings": list(settings),
            "lake": opened.location.address,
        }
        page = opened.root / "reports" / "comparisons" / str(flow_run.id) / "index.html"
    write(page, closing_page(told))
    create_markdown_artifact(
        key="closing-table",
        markdown=markdown(told),
        description=f"{len(entrants)} methods, {seeds} seeds",
    )
    return _ended(told | {"report": str(page)})


def entrants_of(
    methods: Sequence[str], iterations: int, budget: int | None, settings: Sequence[str], toy: bool
) -> list[Entrant]:
    """The methods with their settings, checked against one another. Raises UserError that names the
    method and the key.
    """
    if len(methods) < 2:
        raise UserError(
            "A comparison takes at least two methods: `dapflow compare rso dpo`, say; `dapflow "
            "recipes` lists them."
        )
    if twice := next((name for place, name in enumerate(methods) if name in methods[:place]), None):
        raise UserError(
            f"{twice} is named twice: to compare it with itself under other settings, put them "
            "into a file of your own."
        )
    entrants: list[Entrant] = []
    for name in methods:
        try:
            recipe = chosen(name, settings, toy)
            baselines = recipe.evaluation.baselines
            own = (
                ()
                if INITIAL in baselines
                else (f"evaluation.baselines=[{', '.join([INITIAL, *baselines])}]",)
            )
            fitted = within(recipe, iterations, budget)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        entrants.append(
            Entrant(
                label=recipe.name,
                name=name,
                recipe=recipe,
                settings=(*settings, *own, *fitted.settings),
                fitted=fitted.settings,
                tokens=fitted.tokens,
            )
        )
    labels = [one.label for one in entrants]
    entrants = [
        replace(one, label=one.name) if labels.count(one.label) > 1 else one for one in entrants
    ]  # two files of one name
    for one in entrants[1:]:
        for number in range(1, iterations + 1):
            for found in differences(
                _common(at(entrants[0].recipe, number)), _common(at(one.recipe, number))
            ):
                raise UserError(
                    f"{entrants[0].name} and {one.name} differ in {found['key']} ({found['a']} "
                    f"and {found['b']}) in iteration {number}, "
                    "which would not be compared: say what both are to have, as "
                    f"{found['key']}=VALUE."
                )
    return entrants


def _common(recipe: Recipe) -> dict[str, Any]:
    """What methods must share, or the table compares something else."""
    values = recipe.model_dump(mode="json")
    kept = {key: values[key] for key in ("policy", "seed", "preferences", "evaluation")}
    return kept | {"prompts": {key: values["prompts"][key] for key in _PROMPTS}}


def _run(one: Entrant, seed: int, iterations: int, toy: bool, lake: str) -> Outcome:
    """A method under one seed, as `dapflow run` does it. Ctrl-C stops the comparison; whatever else
    goes wrong is this method's outcome.
    """
    settings = (*one.settings, f"seed={seed}")
    outcome = {
        "method": one.label,
        "seed": seed,
        "command": command_of(one.name, iterations, settings, toy),
    }
    reporter().said(f"{one.label}, seed {seed}")
    try:
        result = align(one.name, iterations, settings, toy, lake)
    except UserError as error:
        failed = str(error)
    except Exception as error:  # a method that breaks must not take the others with it
        failed = f"{type(error).__name__}: {error}"
    else:
        return Outcome(**outcome, policies=tuple(made["policy"] for made in result["iterations"]))
    reporter().said(f"{one.label}, seed {seed} failed: {failed}")
    return Outcome(**outcome, failed=failed)


def _ended(told: dict[str, Any]) -> State[dict[str, Any]]:
    failed = [row["method"] for row in told["methods"] if row["failed"]]
    sentence = f"failed: {', '.join(failed)}" if failed else "every method has been measured"
    return Completed(name="SomeFailed" if failed else "Completed", message=sentence, data=told)

"""`align`: policy t -> policy t+1, as often as asked. The entry point of the command line and of the deployments.

align(recipe="rso", iterations=2, settings=["sampling.temperature=0.9"], lake="./lake")
"""

from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.environment import remember_server
from flows.iteration import Iteration, iterate
from flows.recipe import Recipe, change
from flows.recipes import recipe_named
from flows.recipes import toy as toy_of
from flows.summary import summarise
from storage import DatasetRef, Lake
from tasks.models import resolve
from tasks.policy import register_model
from tasks.step import use_lake


@flow(name="align", flow_run_name="align with {recipe}", persist_result=False)
def align(
    recipe: str = "rso", iterations: int = 1, settings: list[str] | None = None, toy: bool = False, lake: str = "lake"
) -> dict[str, Any]:
    """Run `iterations` iterations of a recipe, each on top of the one before; what the lake already holds is not done again.

    recipe: a name of `dapflow recipes`; settings: `key=value` changes to it; toy: on a toy model. Returns what `dapflow run --json`
    prints about the iterations. Raises UserError for what the user can put right.
    """
    remember_server()
    with Lake(lake) as opened, use_lake(opened):
        done = chain(chosen(recipe, settings or [], toy), iterations, iterate)
        return {"recipe": recipe, "lake": str(opened.root), "iterations": [summarise(opened, one) for one in done]}


def chosen(name: str, settings: list[str], toy: bool) -> Recipe:
    """The recipe that a name, settings and the toy switch stand for."""
    recipe = recipe_named(name)
    return change(toy_of(recipe) if toy else recipe, settings)


def chain(recipe: Recipe, iterations: int, run: Callable[..., Iteration]) -> list[Iteration]:
    """The loop: the only edge back is the new policy, the next iteration's input. `run`: `iterate`, or what stands in for it."""
    initial = register_model(recipe.policy, resolve(recipe.policy).digest)
    policy, earlier_pairs, done = initial, list[DatasetRef](), list[Iteration]()
    for number in range(1, iterations + 1):
        done.append(run(recipe, number, policy, initial, earlier_pairs))
        policy = done[-1].policy
        earlier_pairs = [*earlier_pairs, done[-1].parts["pairs"]]
    return done

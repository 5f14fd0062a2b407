"""`align`: policy t -> policy t+1, as often as asked. The entry point of the command line and of
the deployments.

align(recipe="rso", iterations=2, settings=["sampling.temperature=0.9"], lake="./lake")
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from prefect import flow
from prefect.runtime import deployment, flow_run

from dapflow.flows.iteration import Iteration, iterate
from dapflow.flows.judging.seating import check_judge
from dapflow.flows.recipes.changes import change, stages
from dapflow.flows.recipes.files import find_recipe
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.recipes.toy import toy as toy_of
from dapflow.flows.report.publish import publish_report
from dapflow.flows.report.summary import summarise
from dapflow.flows.server.recipe_code import check_commands, check_name
from dapflow.flows.standing import IterationData
from dapflow.storage import Lake
from dapflow.storage.runs import record_run
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.step import use_lake
from dapflow.tasks.step.shards import use_shards
from dapflow.tasks.step.tracking import check_tracker


@flow(name="align", flow_run_name="align with {recipe}", persist_result=False)
def align(
    recipe: str = "rso",
    iterations: int = 1,
    settings: tuple[str, ...] = (),
    toy: bool = False,
    lake: str = "lake",
) -> dict[str, Any]:
    """Run `iterations` iterations of a recipe, each on top of the one before; what the lake already
    holds is not done again.

    recipe: a name of `dapflow recipes`, or a file with one; settings: `key=value` changes to it;
    toy: on a toy model. Returns what `dapflow run --json` prints about the iterations. Raises
    UserError for what the user can put right.
    """
    if toy:
        torch.set_num_threads(
            1
        )  # its products are so small that a second thread only waits for the first
    wanted = chosen(recipe, settings, toy, from_parameters=deployment.id is not None)
    done: list[Iteration] = []
    reports: list[str] = []
    command = command_of(recipe, iterations, settings, toy)
    with (
        Lake(lake) as opened,
        use_lake(opened),
        use_shards(wanted.shards),
        record_run(
            opened, str(flow_run.id), wanted.name, wanted.model_dump(mode="json"), command
        ) as record,
    ):
        for one in chain(wanted, iterations, iterate):
            done.append(one)
            record.made(len(done), one.policy, one.metrics)
            reports.append(publish_report(one.policy, one.metrics))
        asked = {
            "recipe": recipe,
            "toy": toy,
            "settings": list(settings),
            "lake": opened.location.address,
        }
        told = [
            summarise(opened, one) | {"report": report}
            for one, report in zip(done, reports, strict=True)
        ]
        return asked | {"iterations": told}


def command_of(recipe: str, iterations: int, settings: Sequence[str], toy: bool) -> str:
    """What a person types to have the same run again, in whichever lake."""
    words = [
        "dapflow",
        "run",
        recipe,
        *(["--iterations", str(iterations)] if iterations > 1 else []),
        *(["--toy"] if toy else []),
    ]
    return shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])


def chosen(
    name: str, settings: Sequence[str], toy: bool, *, from_parameters: bool = False
) -> Recipe:
    """The recipe that a name, settings and the toy switch stand for. Raises UserError also for a
    judge that could not be asked.

    from_parameters: they are those of a run on a server, rather than typed here: then what they
    execute must be allowed.
    """
    check_tracker()
    if from_parameters:
        check_name(name)
    recipe = find_recipe(name)
    written = toy_of(recipe) if toy else recipe
    wanted = change(written, settings)
    if from_parameters:
        check_commands(written, wanted)
    for stage in stages(wanted):
        check_judge(stage, stage.judge, labels=True)
        check_judge(stage, stage.evaluation.judge, labels=False)
    return wanted


def chain(recipe: Recipe, iterations: int, run: Callable[..., Iteration]) -> Iterator[Iteration]:
    """The loop: the only edge back is the new policy, the next iteration's input. `run`: `iterate`,
    or what stands in for it.
    """
    initial = register_model(recipe.policy, resolve(recipe.policy).digest)
    policy, earlier = initial, list[IterationData]()
    for number in range(1, iterations + 1):
        done = run(recipe, number, policy, initial, earlier)
        yield done
        policy, earlier = done.policy, [*earlier, done.data]

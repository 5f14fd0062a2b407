"""What a recipe executes beside our own code, and whether a run may that has it from its parameters
alone (flows/server/permissions.py).

A command (`sampler.serve`), a function of the user's, a Python recipe, task files, which may hold
code, and a cluster, which sends code. Test: pytest tests/flows/server/test_permissions.py
"""

from collections.abc import Iterator
from pathlib import Path

from dapflow.flows.recipes.changes import stages
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.server.permissions import is_allowed
from dapflow.storage import UserError

_HOW = (
    "it is not among what `dapflow run` or `dapflow deploy --set` was given on this machine; have "
    "the deployment made here, write it into a "
    "recipe file, or allow all with --allow-commands of `dapflow worker` and `dapflow resume`"
)


def executed_by(name: str, recipe: Recipe) -> set[str]:
    """All that a recipe executes beside our own code, and itself, where the name is a Python
    file's.
    """
    return {
        *(executed for _, executed in _commands(recipe)),
        *([_python(name)] if name.endswith(".py") else []),
    }


def check_name(name: str) -> None:
    """Raises UserError for a recipe in Python that is not allowed. Before it is read: to read it is
    to run it.
    """
    if name.endswith(".py") and not is_allowed(_python(name)):
        raise UserError(
            f"The run's parameters ask for the recipe {name}, which is a program: {_HOW}."
        )


def check_commands(written: Recipe, wanted: Recipe) -> None:
    """Raises UserError for what a recipe would execute that the recipe as it was written does not,
    and that is not allowed.
    """
    own = {executed for _, executed in _commands(written)}
    for key, executed in _commands(wanted):
        if executed not in own and not is_allowed(executed):
            raise UserError(f"The run's parameters ask by `{key}` for the {executed}: {_HOW}.")


def _commands(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Key and description of each thing executed, of the recipe and of its later forms. The same
    thing always has the same description.
    """
    for stage in stages(recipe):
        if stage.sampler.serve is not None:
            yield "sampler.serve", f"command {stage.sampler.serve}"
        if stage.shards.address is not None:
            yield "shards.address", f"cluster {stage.shards.address}"
        if (include := stage.evaluation.harness.include) is not None:
            yield "evaluation.harness.include", f"folder of tasks {_absolute(include)}"
        for key, judge in (("judge", stage.judge), ("evaluation.judge", stage.evaluation.judge)):
            for below, function in judge.executes() if judge is not None else ():
                yield ".".join(filter(None, (key, below))), function


def _python(name: str) -> str:
    return f"recipe {_absolute(name)}"


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()

"""What a script needs: `import dapflow`. Nothing is imported before it is used.

    result = dapflow.run("rso", iterations=2, settings=["sampling.n=16"], lake="./lake")
    with dapflow.Lake("./lake") as lake:
        lake.rows("SELECT name, value FROM metrics")
    mine = dapflow.recipes["rso"].model_copy(update={"name": "mine"})

Test: pytest tests/flows/test_script.py
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dapflow.flows.recipes.methods import RECIPES as recipes
    from dapflow.storage import Lake, UserError

__all__ = ["Lake", "UserError", "recipes", "run"]

_PLACES = {
    "Lake": ("dapflow.storage", "Lake"),
    "UserError": ("dapflow.storage", "UserError"),
    "recipes": ("dapflow.flows.recipes.methods", "RECIPES"),
}


def run(
    recipe: str,
    *,
    iterations: int = 1,
    settings: Sequence[str] = (),
    toy: bool = False,
    lake: str = "lake",
) -> dict[str, Any]:
    """Run a recipe as `dapflow run` does, in this process.

    recipe: a name of `dapflow recipes`, or a file with one's own.
    settings: changes to it, each `key=value`.
    toy: on a toy model made on the spot.

    Returns what `dapflow run --json` prints, less its steps. Raises UserError, in one sentence, for
    what the caller can put right. Call it before anything else imports Prefect: the lake keeps
    Prefect's history.
    """
    from dapflow.flows.server.environment import prepare
    from dapflow.flows.server.run_server import server_ahead

    prepare(lake)
    with server_ahead():
        from dapflow.flows.align import align
    return align(recipe, iterations, tuple(settings), toy, lake)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'dapflow' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)

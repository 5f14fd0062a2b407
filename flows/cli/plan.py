"""`dapflow plan`: what a run would do, and what it would cost. Test: pytest tests/flows/test_run.py"""

import json

from dapflow.flows.cli.options import Iterations, JsonLast, Lake, Settings, Toy
from dapflow.flows.display.screen import Screen
from dapflow.flows.server.environment import prepare
from dapflow.storage.location import locate


def plan(
    recipe: str,
    /,
    *,
    settings: Settings = (),
    iterations: Iterations = 1,
    toy: Toy = False,
    lake: Lake = "lake",
    as_json: JsonLast = False,
) -> None:
    """Check a recipe and say what it would do: steps, models, tokens, time. Runs nothing.

    Example: dapflow plan rso --set sampling.n=16
    """
    prepare(None)
    from dapflow.flows.align import chosen
    from dapflow.flows.planning.plan import make_plan, print_plan
    from dapflow.storage import Lake as OpenLake
    from dapflow.tasks.step import use_lake

    wanted = chosen(recipe, list(settings), toy)
    if locate(lake).exists:
        with OpenLake(lake, read_only=True) as opened, use_lake(opened):
            made = make_plan(wanted, iterations, opened)
    else:
        made = make_plan(wanted, iterations, None)
    print(json.dumps(made)) if as_json else print_plan(Screen(), made)

"""`dapflow run`: a recipe, from prompts to a measured policy. Test: pytest tests/flows/test_run.py"""

import json

from rich.text import Text

from dapflow.flows.cli.options import Iterations, JsonLast, Lake, Settings, Toy
from dapflow.flows.display.screen import Screen
from dapflow.flows.server.environment import prepare
from dapflow.flows.server.run_server import server_ahead
from dapflow.storage.location import locate


def run(
    recipe: str,
    /,
    *,
    settings: Settings = (),
    iterations: Iterations = 1,
    toy: Toy = False,
    lake: Lake = "lake",
    as_json: JsonLast = False,
) -> None:
    """Run a recipe. What the lake already holds is not done again; a run that was stopped goes on.

    Example: dapflow run rso --iterations 2 --set sampling.temperature=0.9

    Parameters
    ----------
    recipe
        Name of the recipe (`dapflow recipes` lists them), or a file with your own: ./mine.yaml, ./mine.py.
    iterations
        How many iterations there should be in all, each on top of the one before.
    """
    console = Screen(stderr=as_json)
    prepare(lake)
    beginning = f"  lake {locate(lake).address}  (loading, starting Prefect ...)"
    console.print(Text.assemble((f"dapflow run {recipe}", "bold"), beginning))
    with server_ahead():
        from dapflow.flows.align import align, chosen
        from dapflow.flows.display.console import ConsoleReporter, print_summary
        from dapflow.flows.server.permissions import remember
        from dapflow.flows.server.recipe_code import executed_by
        from dapflow.tasks.step.progress import report_to

        wanted = chosen(
            recipe, list(settings), toy
        )  # says what is wrong with the recipe before anything is run
        remember(executed_by(recipe, wanted))  # for `dapflow resume`
    reporter = ConsoleReporter(console)
    with reporter, report_to(reporter):
        result = align(recipe, iterations, settings, toy, lake)
    print_summary(console, result, reporter.records)
    if as_json:
        names = ("name", "version", "state", "rows", "seconds")
        steps = [{name: getattr(step, name) for name in names} for step in reporter.records]
        print(json.dumps(result | {"steps": steps}))

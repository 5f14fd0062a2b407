"""`dapflow compare`: several methods side by side, and the closing table of what came of each.

Heavy imports stand inside the command, so that --help is quick and Prefect sees the environment
that `prepare` made.
"""

import json
from typing import Annotated

from cyclopts import Parameter, validators
from rich.text import Text

from dapflow.flows.cli.options import Json, Lake
from dapflow.flows.cli.report import Html
from dapflow.flows.display.screen import Screen
from dapflow.flows.server.environment import prepare
from dapflow.flows.server.run_server import server_ahead
from dapflow.storage.errors import UserError
from dapflow.storage.location import locate

Least = validators.Number(gte=1)
Count = Annotated[int, Parameter(validator=Least)]
Tokens = Annotated[int | None, Parameter(validator=Least)]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Change all recipes: key=value, repeatable.", negative=()),
]
Toy = Annotated[bool, Parameter(name="--toy", negative=(), help="On a toy model made on the spot.")]


def compare(
    *methods: str,
    iterations: Count = 1,
    budget_tokens: Tokens = None,
    seeds: Count = 1,
    settings: Settings = (),
    toy: Toy = False,
    html: Html = None,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Run several methods on the same prompts, initial policy and judge, and print what came of
    each, measured.

    Example: dapflow compare rso iterative-dpo oaif ./mine.yaml --iterations 2 --seeds 3
    sampling.max_tokens=48

    Parameters
    ----------
    methods
        Names of recipes, or files with your own; a word with `=` in it is a setting for all of them.
    iterations
        How many iterations each method runs.
    budget_tokens
        How many tokens each may sample for training in all iterations: prompts and rounds are made fewer until it fits.
    seeds
        How many seeds each runs under; intervals are then over prompts and seeds.
    """
    names = tuple(word for word in methods if "=" not in word)
    changes = (*(word for word in methods if "=" in word), *settings)
    console = Screen(stderr=as_json)
    prepare(lake)
    beginning = f"  lake {locate(lake).address}  (loading, starting Prefect ...)"
    console.print(Text.assemble(("dapflow compare", "bold"), beginning))
    with server_ahead():
        from dapflow.flows.compare import compare as run
        from dapflow.flows.compare import entrants_of
        from dapflow.flows.display.console import ConsoleReporter
        from dapflow.flows.report.drawing.methods_table import print_closing
        from dapflow.flows.report.drawing.page import write
        from dapflow.storage import Lake as OpenLake
        from dapflow.tasks.step import use_lake
        from dapflow.tasks.step.progress import report_to

        with (
            OpenLake(lake) as opened,
            use_lake(opened),
        ):  # says what is wrong before anything is run
            for one in entrants_of(names, iterations, budget_tokens, changes, toy):
                fitted = f", with {', '.join(one.fitted)}" if one.fitted else ""
                console.print(
                    f"{one.label}: samples {one.tokens:,} tokens for training at most{fitted}",
                    highlight=False,
                )
                if iterations < (begins := len(one.recipe.data)):
                    first = ", ".join(one.recipe.data[:iterations])
                    console.print(
                        f"  learns from {first} at first; what it is named for begins with "
                        f"--iterations {begins}",
                        highlight=False,
                    )
    reporter = ConsoleReporter(console)
    with reporter, report_to(reporter):
        told = run(names, iterations, budget_tokens, seeds, changes, toy, lake)
    print_closing(console, told)
    made = sum(record.state == "run" for record in reporter.records)
    console.print(
        f"{len(reporter.records)} steps, {len(reporter.records) - made} of them shared or cached. "
        f"The page: {told['report']}"
    )
    if html is not None:
        from dapflow.flows.report.drawing.methods_table import closing_page

        write(html, closing_page(told))
    if as_json:
        print(json.dumps(told | {"steps": {"run": made, "cached": len(reporter.records) - made}}))
    if failed := [row["method"] for row in told["methods"] if row["failed"]]:
        raise UserError(
            f"Not every method came through ({', '.join(failed)}): the table says why. The same "
            "command tries them again."
        )

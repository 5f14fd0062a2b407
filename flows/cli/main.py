"""The command line: `dapflow run`, `plan`, `recipes`, `ui` and those of the lake
(dapflow.flows.cli.lake). Exit codes: 0 done, 2 something to put right, 130 Ctrl-C.

Heavy imports stand inside the commands, so that --help is quick and Prefect sees the environment
that `prepare` made.
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.text import Text

from dapflow.flows.cli.advice import advised
from dapflow.flows.cli.agreement import agreement
from dapflow.flows.cli.chat import chat, serve
from dapflow.flows.cli.compare import compare
from dapflow.flows.cli.deploy import deploy, worker
from dapflow.flows.cli.judge import judge
from dapflow.flows.cli.label import label
from dapflow.flows.cli.lake import COMMANDS
from dapflow.flows.cli.metrics import metrics
from dapflow.flows.cli.options import AllowHost, Lake, Port, check_free, name_hosts
from dapflow.flows.cli.policies import policies, promote, rollback
from dapflow.flows.cli.report import compare_runs, report
from dapflow.flows.cli.resume import doctor, resume
from dapflow.flows.cli.winrate import winrate
from dapflow.flows.display.screen import Screen, print_anything, say
from dapflow.flows.server import interrupt
from dapflow.flows.server.environment import (
    UI_PASSWORD,
    of_server,
    prepare,
    server_password,
    set_defaults,
)
from dapflow.flows.server.run_server import server_ahead
from dapflow.storage.errors import UserError, interrupted
from dapflow.storage.location import locate
from dapflow.tasks.servers.door import is_loopback

app = App(
    name="dapflow",
    suppress_keyboard_interrupt=False,
    help="Direct alignment from preferences, as a flow: sample, judge, pair, train, measure, and again.",
)

NIGHTS = {
    "deploy": deploy, "worker": worker, "resume": resume, "doctor": doctor, "policies": policies, "promote": promote, "rollback": rollback,
}  # fmt: skip

_OWN = {
    "agreement": agreement,
    "chat": chat,
    "compare": compare,
    "compare-runs": compare_runs,
    "judge": judge,
    "label": label,
    "metrics": metrics,
    "report": report,
    "serve": serve,
    "winrate": winrate,
}
for name, command in (COMMANDS | NIGHTS | _OWN).items():
    app.command(command, name=name)

Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Change the recipe: key=value, repeatable.", negative=()),
]
Toy = Annotated[
    bool, Parameter(name="--toy", negative=(), help="On a toy model made on the spot: seconds.")
]
Json = Annotated[
    bool, Parameter(name="--json", negative=(), help="Print one JSON object as the last line.")
]


@app.command
def run(
    recipe: str,
    /,
    *,
    settings: Settings = (),
    iterations: int = 1,
    toy: Toy = False,
    lake: Lake = "lake",
    as_json: Json = False,
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
    _at_least_one(iterations)
    console = Screen(stderr=as_json)
    prepare(lake)
    beginning = f"  lake {locate(lake).address}  (loading, starting Prefect ...)"
    console.print(Text.assemble((f"dapflow run {recipe}", "bold"), beginning))
    with server_ahead():
        from dapflow.flows.align import align, chosen
        from dapflow.flows.cli.console import ConsoleReporter, print_summary
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
        steps = [
            {name: getattr(one, name) for name in ("name", "version", "state", "rows", "seconds")}
            for one in reporter.records
        ]
        print(json.dumps(result | {"steps": steps}))


@app.command
def plan(
    recipe: str,
    /,
    *,
    settings: Settings = (),
    iterations: int = 1,
    toy: Toy = False,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Check a recipe and say what it would do: steps, models, tokens, time. Runs nothing.

    Example: dapflow plan rso --set sampling.n=16
    """
    _at_least_one(iterations)
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


@app.command
def recipes(name: str | None = None, /, *, as_json: Json = False) -> None:
    """List the recipes, or print one in full with every key that --set can change.

    Example: dapflow recipes rso
    """
    prepare(None)
    from dapflow.flows.recipes.changes import origins
    from dapflow.flows.recipes.files import find_recipe
    from dapflow.flows.recipes.methods import RECIPES

    if name is not None:
        chosen = find_recipe(name)
        print(
            json.dumps(chosen.model_dump(mode="json"))
            if as_json
            else in_full(chosen.model_dump(mode="json"), origins(chosen))
        )
    elif as_json:
        print(json.dumps([recipe.model_dump(mode="json") for recipe in RECIPES.values()]))
    else:
        for recipe in RECIPES.values():
            print(f"{recipe.name:<19} {recipe.title} ({recipe.paper})")


def in_full(
    values: dict[str, Any], origins: dict[str, str], prefix: str = "", depth: int = 0
) -> str:
    """A recipe as YAML, as it can stand in a file of one's own, each value with where it comes
    from.
    """
    import yaml

    lines: list[str] = []
    for key, value in values.items():
        known = origins.get(f"{prefix}{key}")
        if isinstance(value, dict) and known is None:
            lines += [
                f"{'  ' * depth}{key}:",
                in_full(value, origins, f"{prefix}{key}.", depth + 1),
            ]
        else:
            said = yaml.safe_dump(
                [value], default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
            ).strip()[1:-1]
            lines.append(f"{'  ' * depth}{key}: {said}" + (f"  # {known}" if known else ""))
    return "\n".join(lines)


@app.command
def ui(
    *, lake: Lake = "lake", port: Port = 4200, host: str = "127.0.0.1", allow_host: AllowHost = ()
) -> NoReturn:
    """Open the Prefect UI on the runs of a lake, on loopback; Ctrl-C ends it. Workers and schedules
    use the same server.

    Example: dapflow ui --port 4300

    Parameters
    ----------
    host
        Another address to listen on: then a password must be set in DAPFLOW_UI_PASSWORD (for the user `dapflow`, or user:password), and is
        asked for.
    """
    password = server_password()
    if not is_loopback(host) and not password:
        raise UserError(
            f"--host {host} lets others in: set a password in {UI_PASSWORD}, which they are then asked for (user dapflow)."
        )
    check_free(host, port)
    name_hosts(allow_host)
    prepare(lake)
    shown = (
        socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    )
    os.environ.pop("PREFECT_API_URL", None)  # a server asks no other
    for name in ("PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL"):
        os.environ.setdefault(name, "/api")  # by whichever of its names the browser came
    os.environ.setdefault("PREFECT_UI_URL", f"http://{shown}:{port}")  # what notifications link to
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect.server.concurrency.lease_storage.filesystem",
    )
    print(f"The runs of {locate(lake).address}: http://{shown}:{port}/runs", flush=True)
    if not password:
        print(
            f"Every user of this machine can reach it: set {UI_PASSWORD} to have a password asked for (user dapflow).",
            flush=True,
        )
    pages = str(locate(lake).root.absolute() / "reports")
    os.execv(
        sys.executable,
        [
            sys.executable,
            "-P",
            "-m",
            "dapflow.flows.server.prefect_server",
            "--host",
            host,
            "--port",
            str(port),
            "--reports",
            pages,
        ],
    )


def _at_least_one(iterations: int) -> None:
    if iterations < 1:
        raise UserError(f"--iterations {iterations}: there must be at least one.")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: one sentence and exit code 2 for what a user can put right, 130 for
    Ctrl-C.
    """
    interrupt.listen()
    print_anything()
    set_defaults()  # some commands import torch, or Prefect, and run nothing
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _check_readable(words)
        app(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except (UserError, CycloptsError) as error:
        say(f"dapflow: {advised(error)}", sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has seen enough
        _print_no_more()
        sys.exit(141)
    except (KeyboardInterrupt, Exception) as error:
        if (
            isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
        ):  # of a stream, not of a file by its name
            _print_no_more()
            print(
                "dapflow: the output cannot be written, no space is left where it goes.",
                file=sys.stderr,
            )
            sys.exit(2)
        if sentence := of_server(error):
            say(f"dapflow: {sentence}", sys.stderr)
            sys.exit(2)
        if not interrupted(error):
            raise
        print(
            "\ndapflow: stopped. Nothing is lost: the same command goes on from here.",
            file=sys.stderr,
        )
        sys.exit(130)


def _check_readable(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            encoding = sys.getfilesystemencoding()
            raise UserError(
                f"{word!a} is not text in {encoding}, which the terminal says it writes: set LC_ALL=C.UTF-8."
            ) from error


def _print_no_more() -> None:
    """What is still to be printed would fail once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

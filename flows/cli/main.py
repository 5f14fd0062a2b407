"""The command line: each command has a file of its name beside this one, those of the lake in
lake/, those of nights in nights/. Exit codes: 0 done, 2 something to put right, 130 Ctrl-C.

Heavy imports stand inside the commands, so that --help is quick and Prefect sees the environment
that `prepare` made.
"""

import errno
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from dapflow.flows.cli.advice import advised
from dapflow.flows.cli.agreement import agreement
from dapflow.flows.cli.chat import chat, serve
from dapflow.flows.cli.compare import compare
from dapflow.flows.cli.judge import judge
from dapflow.flows.cli.label import label
from dapflow.flows.cli.lake import COMMANDS as OF_THE_LAKE
from dapflow.flows.cli.metrics import metrics
from dapflow.flows.cli.nights.deploy import deploy
from dapflow.flows.cli.nights.policies import policies, promote, rollback
from dapflow.flows.cli.nights.resume import doctor, resume
from dapflow.flows.cli.nights.ui import ui
from dapflow.flows.cli.nights.worker import worker
from dapflow.flows.cli.plan import plan
from dapflow.flows.cli.recipes import recipes
from dapflow.flows.cli.report import compare_runs, report
from dapflow.flows.cli.run import run
from dapflow.flows.cli.winrate import winrate
from dapflow.flows.display.screen import print_anything, say
from dapflow.flows.server import interrupt
from dapflow.flows.server.environment import of_server, set_defaults
from dapflow.storage.errors import UserError, interrupted

app = App(
    name="dapflow",
    suppress_keyboard_interrupt=False,
    help=(
        "Direct alignment from preferences, as a flow: sample, judge, pair, train, measure, and "
        "again."
    ),
)

COMMANDS = {
    "agreement": agreement,
    "chat": chat,
    "compare": compare,
    "compare-runs": compare_runs,
    "deploy": deploy,
    "doctor": doctor,
    "judge": judge,
    "label": label,
    "metrics": metrics,
    "plan": plan,
    "policies": policies,
    "promote": promote,
    "recipes": recipes,
    "report": report,
    "resume": resume,
    "rollback": rollback,
    "run": run,
    "serve": serve,
    "ui": ui,
    "winrate": winrate,
    "worker": worker,
}
for name, command in (OF_THE_LAKE | COMMANDS).items():
    app.command(command, name=name)


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
                f"{word!a} is not text in {encoding}, which the terminal says it writes: set "
                "LC_ALL=C.UTF-8."
            ) from error


def _print_no_more() -> None:
    """What is still to be printed would fail once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

"""How to do on the command line what an error's sentence asks for.

    advised(error)  ->  "There is no lake at x: run a recipe, which makes one, or name another (`dapflow run rso`, --lake)."
Test: pytest tests/flows/cli/test_advice.py
"""

import os
import sys
from collections.abc import Mapping

from dapflow.flows.display.screen import say
from dapflow.storage.errors import Remedy, UserError

ADVICE: Mapping[Remedy, str] = {
    Remedy.MAKE_LAKE: "`dapflow run rso`, --lake",
    Remedy.OTHER_LAKE: "--lake",
    Remedy.RUN_RECIPE: "`dapflow run`",
    Remedy.FIND_DAMAGE: "`dapflow verify`",
    Remedy.LIST_DATASETS: "`dapflow datasets`",
    Remedy.LIST_MODELS: "`dapflow datasets --kind models`",
    Remedy.LIST_TABLES: '`dapflow sql "show tables"`',
    Remedy.FOLLOW_ROW: "`dapflow lineage`",
    Remedy.PROMOTE: "`dapflow promote`, or a night",
    Remedy.WRITE_OFF_RUN: "`dapflow doctor`",
    Remedy.REPLACE_FILE: "--replace",
    Remedy.LONGER_QUERY: "--timeout",
    Remedy.CONDITION: "--where",
}


def advised(error: Exception) -> str:
    """The sentence of an error, with the command or option that does what it asks for."""
    sentence = str(error)
    if not isinstance(error, UserError) or error.remedy is None:
        return sentence
    return f"{sentence.removesuffix('.')} ({ADVICE[error.remedy]})."


def end(error: UserError) -> None:
    """End the command at once, from whatever thread: only where it can lose nothing."""
    say(f"dapflow: {advised(error)}", sys.stderr)
    os._exit(2)

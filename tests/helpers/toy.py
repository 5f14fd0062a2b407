"""Runs of toy size: the command line called in this process, and settings that keep it short."""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.cli import main as cli
from tests.helpers.lakes import empty_lake

SMALL = ("prompts.per_iteration=4", "prompts.held_out=6", "sampling.n=3", "sampling.max_tokens=6")
QUICK = (
    *SMALL,
    "training.epochs=1",
    "evaluation.judge=shorter",
    "evaluation.probes=0",
    "evaluation.exact.source=",
    "evaluation.instructions.prompts=0",
)
"""Nothing measured but who wins, and that by a program: two thirds of the steps. For tests of
something else than the figures.
"""
BY_LENGTH = (*QUICK, "judge=shorter")
"""No reward model either: half the steps. For tests of something else than the judge."""


def words(*settings: str) -> list[str]:
    """The settings as the command line takes them."""
    return [word for setting in settings for word in ("--set", setting)]


def dapflow(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line. A run whose lake is not
    there finds it empty, which is quicker than making one.
    """
    if arguments[0] == "run" and "--lake" in arguments:
        lake = Path(arguments[arguments.index("--lake") + 1])
        if not lake.exists() and lake.parent.is_dir():
            empty_lake(lake)
    try:
        cli.main(arguments)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def quick(
    command: str,
    lake: Path,
    capsys: pytest.CaptureFixture[str],
    *settings: str,
    recipe: str = "sft-sample-rank",
) -> tuple[int, dict[str, Any], str]:
    """Exit code, result and standard error of a toy run (or its plan) of which nothing is measured."""
    code, out, err = dapflow(
        command,
        recipe,
        "--toy",
        "--json",
        "--lake",
        str(lake),
        *words(*QUICK, *settings),
        capsys=capsys,
    )
    return code, json.loads(out.splitlines()[-1]) if code == 0 else {}, err

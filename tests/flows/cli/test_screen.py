"""What a terminal is given: names and answers as they are, whatever they hold, and a sentence where
it cannot be printed.
"""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.panel import Panel

from dapflow.flows.display.console import ConsoleReporter
from dapflow.flows.display.screen import Screen
from dapflow.flows.planning.plan import print_plan
from dapflow.storage import Lake
from dapflow.tasks.step.progress import StepRecord
from tests.helpers.evaluated import run
from tests.helpers.toy import dapflow

MARKUP = "[bold]x[/nope] [/bold] [link=http://evil.example]y[/link] :warning: [red"


def plan(name: str) -> dict[str, Any]:
    step = {
        "name": name,
        "version": "prompts@a",
        "from": {"prompts": "a"},
        "tokens": {},
        "cached": False,
        "seconds": 1.0,
    }
    paid = {"calls": 0, "models": [], "known": 0, "usd": None}
    return {
        "recipe": name, "iterations": 1, "models": {name: name}, "steps": [step], "tokens": {}, "judge_calls": 0, "paid": paid,
        "seconds": 1, "gflops": 1,
    }  # fmt: skip


def test_a_string_is_no_markup_and_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    console = Screen()
    console.width = 400
    console.print(MARKUP)
    console.print(Panel(MARKUP))
    print_plan(console, plan(MARKUP))
    assert capsys.readouterr().out.count(MARKUP) >= 6


def test_the_name_of_a_step_and_what_it_says_are_no_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Screen()
    console.width = 400
    reporter = ConsoleReporter(console)
    with reporter:
        reporter.started(MARKUP)
        reporter.advanced(1, 2, "rows", MARKUP)
        reporter._bars.refresh()
        reporter.said(MARKUP)
        reporter.finished(
            StepRecord(name=MARKUP, version="a", kind="prompts", state="run", rows=1, seconds=1.0)
        )
    assert capsys.readouterr().out.count(MARKUP) >= 2


def test_a_recipe_named_like_markup_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: rso\nname: '[/bold] mine'\ntitle: '[/red]'\nprompts: {per_iteration: 4, held_out: 4}\n"
    )
    code, out, err = dapflow(
        "plan", str(file), "--toy", "--lake", str(tmp_path / "[bold]lake[/nope]"), capsys=capsys
    )
    assert code == 0, err
    assert "[/bold] mine, 1 iteration(s)" in out
    code, out, err = dapflow("recipes", str(file), capsys=capsys)
    assert code == 0 and "[/bold] mine" in out


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\u200bb", "", "a" * 101, "\ud800"]
)
def test_a_name_that_is_none_is_refused_in_a_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        f"from dapflow.flows.recipes.methods import RSO\nRECIPE = RSO.model_copy(update={{'name': {name!a}}})\n"
    )
    code, _, err = dapflow("plan", str(file), capsys=capsys)
    assert code == 2
    assert "`name`" in err and "mine.py" in err and len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake with answers that hold what ASCII does not."""
    with Lake(tmp_path_factory.mktemp("odd") / "lake") as made:
        run(made, "odd", text="≥ 漢字 \u202e", settings={"seed": 1})
        return made.location.address


def command(
    lake: str, words: tuple[str, ...], stdout: Any = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-m", "dapflow.flows.cli.main", *words, "--lake", lake]
    return subprocess.run(
        program, stdout=stdout, stderr=subprocess.PIPE, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_what_the_terminal_cannot_show_is_shown_by_its_number(
    lake: str, environment: dict[str, str]
) -> None:
    done = command(lake, ("sql", "select chr(28450) as x"), **environment)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.isascii() and b"\\u6f22" in done.stdout


@pytest.mark.parametrize("words", ["report", "datasets"])
def test_every_command_prints_into_a_terminal_of_ascii(
    lake: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    code, _, err = dapflow(words, "--lake", lake, capsys=capsys)
    assert code == 0, err
    assert printed.getvalue().isascii()
    assert (b"\\u" in printed.getvalue()) == (words == "report")


def test_an_argument_in_another_encoding_is_refused_in_a_sentence(lake: str) -> None:
    done = command(
        lake, ("sql", "select '漢'"), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert (
        done.returncode == 2
        and done.stderr.startswith(b"dapflow: ")
        and b"is not text in ascii" in done.stderr
    )


@pytest.mark.parametrize("words", [("datasets",), ("datasets", "--json")])
def test_an_output_that_is_full_is_told_in_a_sentence(lake: str, words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = command(lake, words, stdout=full)
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "dapflow: the output cannot be written, no space is left where it goes.\n",
    )


def test_a_report_that_does_not_fit_is_told_in_a_sentence(
    lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = dapflow("report", "--lake", lake, capsys=capsys)
    assert (code, err) == (
        2,
        "dapflow: the output cannot be written, no space is left where it goes.\n",
    )

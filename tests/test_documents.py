"""The documents against the code: tables, trees, links, commands and settings in them are true."""

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from dapflow.flows.cli.main import app
from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.methods import RECIPES
from dapflow.storage import Lake, UserError
from dapflow.tasks.judging.kinds import KINDS
from dapflow.tasks.metrics import AS_A_JUDGE, METRICS
from dapflow.tasks.prompts.constraints import RULES
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.registry import losses
from tests.documents import (
    FILES,
    MANUALS,
    Table,
    anchors,
    blocks,
    commands,
    lines,
    links,
    names,
    table,
    tables,
)
from tests.helpers import ROOT

FOLDERS = ("flows", "tasks", "storage", "deployments", "tests")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
BUILT_IN = {"migrations", "promotion_turn"}  # tables of the lake that are no relation
COMMANDS = [(name, words) for name in MANUALS for words in commands(FILES[name])]
SET = "`--set"
SETTINGS = [
    (name, column, row[column])
    for name in MANUALS
    for rows in tables(FILES[name])
    for row in rows
    for column in row
    if column.startswith(SET) and "=" in row[column]
]
BEFORE = ([], ["judge={kind: llm, endpoint: {model: m}}"], ["judge=human"], ["judge=policy"])
"""Who judges, for settings of a judge."""


def test_the_first_document_is_short() -> None:
    assert len(FILES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("name", MANUALS)
def test_lines_end_at_column_100(name: str) -> None:
    printed = {line for block in blocks(FILES[name]) if "─" in "".join(block) for line in block}
    for line, code in lines(FILES[name]):
        free = line.startswith("|") or "://" in line
        free |= code and line.removeprefix("    ") in printed
        assert len(line) <= 100 or free, line


@pytest.mark.parametrize("name", FILES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for target in links(FILES[name]):
        path, _, heading = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.exists(), target
        assert not heading or heading in anchors(file.read_text("utf-8")), target


@pytest.mark.parametrize("name", FILES)
def test_files_and_modules_that_are_named_exist(name: str) -> None:
    for line in FILES[name].splitlines():
        files = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+\.\w+)`", line)
        assert "| new" in line or all((ROOT / file).exists() for file in files), line
        for module in re.findall(r"python -m ([\w.]+)", line):
            assert find_spec(module) is not None, module


@pytest.mark.parametrize("name", MANUALS)
def test_python_in_documents_imports_what_there_is(name: str) -> None:
    for code in re.findall(r"```python\n(.*?)```", FILES[name], re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), code


def test_the_tree_has_every_folder_of_two_levels() -> None:
    [tree] = [block for block in blocks(FILES["README.md"]) if block[0].startswith("flows/")]
    listed, top = set[str](), ""
    for line in tree:
        folder = line.split()[0].rstrip("/")
        top = top if line.startswith(" ") else folder
        listed.add(f"{top}/{folder}" if line.startswith(" ") else folder)
    existing = {str(sub.relative_to(ROOT)) for folder in FOLDERS for sub in _folders(ROOT / folder)}
    assert listed == {*FOLDERS, *existing}


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in it that have files of the project."""
    for sub in folder.iterdir():
        files = (file for file in sub.rglob("*") if "__pycache__" not in file.parts)
        if any(file.is_file() for file in files):
            yield sub


def test_every_command_is_listed() -> None:
    listed = [
        line.split()[1] for line in names(table(FILES["flows/README.md"], "command"), "command")
    ]
    assert sorted(listed) == sorted(name for name in app if not name.startswith("-"))


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_commands_parse(name: str, words: list[str]) -> None:
    app.parse_args(words, exit_on_error=False, print_error=False)
    settings = [after for word, after in pairwise(words) if word == "--set"]
    if words[0] in ("run", "plan") and not words[1].startswith("."):
        change(RECIPES[words[1]], settings)


@pytest.mark.parametrize("name", MANUALS)
def test_commands_in_sentences_exist_with_their_options(name: str) -> None:
    for command, rest in re.findall(r"`dapflow ([a-z-]+)([^`]*)`", FILES[name]):
        assert set(re.findall(r"--[a-z-]+", rest)) <= _options_of(command), command


def test_options_beside_a_command_are_its_own() -> None:
    for row in table(FILES["flows/README.md"], "command"):
        for command in re.findall(r"`dapflow ([a-z-]+)", row["command"]):
            options = set(re.findall(r"`(--[a-z-]+)", row["what it does"]))
            assert options <= _options_of(command), command


def _options_of(command: str) -> set[str]:
    arguments = app[command].assemble_argument_collection()
    return {name for argument in arguments for name in argument.names}


@pytest.mark.parametrize(("name", "column", "cell"), SETTINGS)
def test_settings_in_tables_are_taken_by_a_recipe(name: str, column: str, cell: str) -> None:
    start = column.removeprefix(SET).partition("`")[0].strip()
    items = [shlex.split(item) for item in re.findall(r"`([^`]+=[^`]*)`", cell)]
    settings = [start + setting for [setting] in items]
    complaints = list[str]()
    for recipe in RECIPES.values():
        for before in BEFORE:
            try:
                change(recipe, [*before, *settings])
                return
            except UserError as error:
                complaints.append(str(error))
    pytest.fail(f"{settings}: {complaints[0]}")


def test_every_recipe_is_listed() -> None:
    listed = names(table(FILES["flows/README.md"], "recipe"), "recipe")
    assert sorted(listed) == sorted(RECIPES)


def test_every_loss_is_listed_with_its_options() -> None:
    rows = table(FILES["tasks/training/README.md"], "loss")
    listed = {row["loss"].strip("`"): set(names([row], "options and defaults")) for row in rows}
    assert listed == {name.replace("_", "-"): _options(name) for name in losses()}


def _options(loss: str) -> set[str]:
    options = {key: value for key, value in Loss.of(loss).model_dump().items() if key != "name"}
    return {f"{key}={str(value).lower()}" for key, value in options.items()}


def test_every_metric_is_listed() -> None:
    listed = names(table(FILES["flows/report/README.md"], "metric"), "metric")
    assert sorted(listed) == sorted(METRICS | AS_A_JUDGE)


def test_every_kind_of_judge_and_every_rule_of_constraints_is_listed() -> None:
    kinds = names(table(FILES["tasks/judging/README.md"], "kind"), "kind")
    assert sorted(kinds) == sorted(KINDS)
    rules = names(table(FILES["tasks/judging/README.md"], "rule"), "rule")
    assert sorted(rules) == sorted(RULES)


def test_every_relation_is_listed(lake: Lake) -> None:
    listed = names(table(FILES["storage/README.md"], "relation"), "relation")
    existing = {row["name"] for row in lake.rows("SHOW TABLES")} - BUILT_IN
    assert sorted(listed) == sorted(existing)


def test_every_engine_is_listed() -> None:
    listed = names(table(FILES["tasks/sampling/README.md"], "engine"), "engine")
    assert set(listed) == set(get_args(Sampler.model_fields["engine"].annotation))


def test_every_marker_and_every_extra_is_listed() -> None:
    markers = names(table(FILES["tests/README.md"], "marker"), "marker")
    declared = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
    assert sorted(markers) == sorted(line.partition(":")[0] for line in declared)
    extras = names(table(FILES["README.md"], "extra"), "extra")
    assert sorted(extras) == sorted(PROJECT["project"]["optional-dependencies"])


def test_every_variable_of_ours_is_listed() -> None:
    files = (file for folder in FOLDERS[:4] for file in (ROOT / folder).rglob("*.py"))
    read = {
        name for file in files for name in re.findall(r"\bDAPFLOW_\w+", file.read_text("utf-8"))
    }
    listed = set(names(table(FILES["flows/README.md"], "variable"), "variable"))
    assert {name for name in listed if name.startswith("DAPFLOW_")} == read


def test_make_lists_its_targets() -> None:
    phony = MAKEFILE.partition(".PHONY:")[2].partition("\n\n")[0].replace("\\\n", " ").split()
    listed = subprocess.run(["make", "--silent"], cwd=ROOT, capture_output=True, text=True).stdout
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(phony)
    assert all(len(line.split()) > 1 for line in listed.splitlines())
    tiers: Table = table(FILES["tests/README.md"], "target")
    for target in {name for name in phony if name.startswith("test")} - _targets(tiers):
        pytest.fail(f"tests/README.md does not list {target}")
    for name in MANUALS:
        named = set(re.findall(r"`make ([a-z-]+)|^    make ([a-z-]+)", FILES[name], re.MULTILINE))
        assert {inline or line for inline, line in named} <= set(phony), name


def _targets(tiers: Table) -> set[str]:
    return {name.removeprefix("make ") for name in names(tiers, "target")}

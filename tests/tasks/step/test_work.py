"""Every step says what it does, and nobody asks for it by a step's name."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from dapflow.flows.align import chain, chosen
from dapflow.flows.iteration import iterate
from dapflow.storage import DatasetRef
from dapflow.tasks.step import Contents, Out, Work, contents_of, planning, step
from dapflow.tasks.step.work import Activity
from tests.helpers import ROOT

BY_MODELS = ("prompting", "sampling", "judging", "training")
"""Activities that are nothing without a model or somebody who is asked."""
FILES = [
    file
    for folder in ("flows", "tasks", "deployments")
    for file in sorted((ROOT / folder).rglob("*.py"))
]


def steps() -> Iterator[tuple[ast.FunctionDef, dict[str, ast.expr]]]:
    """The steps of the project, with what stands beside each."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "step":
                    assert isinstance(node, ast.FunctionDef)
                    yield node, {word.arg or "": word.value for word in decorator.keywords}


NAMES = {function.name for function, _ in steps()}


def test_every_step_says_what_it_does_and_how_much_where_a_model_or_a_judge_does_it() -> None:
    for function, declared in steps():
        activity = declared["activity"]
        assert isinstance(activity, ast.Constant), function.name
        assert activity.value in get_args(Activity), function.name
        assert activity.value not in BY_MODELS or "work" in declared, function.name


def compared_names(file: Path) -> Iterator[str]:
    """Comparisons of a step's name with one that is written there."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.Compare):
            continue
        written = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)} & NAMES
        if any(
            (isinstance(side, ast.Attribute) and side.attr == "step")
            or (written and isinstance(side, ast.Name) and side.id == "step")
            or (written and isinstance(side, ast.Subscript) and ast.unparse(side.slice) == "'step'")
            for side in (node.left, *node.comparators)
        ):
            yield f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def test_nobody_asks_for_a_step_by_its_name() -> None:
    assert {"sample", "judge", "train", "train_online"} <= NAMES
    assert [found for file in FILES for found in compared_names(file)] == []


def test_a_comparison_with_a_name_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    file = tmp_path / "plan.py"
    file.write_text(
        "a = call.step == SAMPLE\nb = call.step in NAMES\nc = step['step'] in ('judge', 'x')\n"
        "d = row['step'] is None\ne = part == 'judge'\n"
    )
    assert [line.split(":")[1] for line in compared_names(file)] == ["1", "2", "3"]


@pytest.mark.parametrize("settings", [(), ("judge=policy",), ("judge=shorter", "judge=shorter")])
def test_what_is_said_to_be_shared_out_is_what_shares_its_rows_out(
    settings: tuple[str, ...],
) -> None:
    spreading = {f.name for f, _ in steps() if "spread(" in ast.unparse(f)}
    with planning() as calls:
        list(chain(chosen("rso", settings, toy=True), 1, iterate.fn))
    assert {call.step for call in calls if call.work.shards} == spreading & {
        call.step for call in calls
    }


@step(
    "completions",
    title="answer {prompts.rows} prompts",
    expects=lambda prompts: 2 * prompts.rows,
    activity="sampling",
    work=lambda prompts: Work(
        sampled=200,
        makes=Contents(rows=2 * prompts.rows, prompts=prompts.rows, answer_tokens=10),
    ),
)
def answer(out: Out, prompts: DatasetRef) -> None: ...


@step(
    "metrics",
    title="read {answers.rows} answers",
    expects=lambda answers: 1,
    activity="measuring",
    work=lambda answers: Work(scored=round(contents_of(answers).tokens)),
)
def read(out: Out, answers: DatasetRef) -> None: ...


def test_a_planned_step_knows_what_its_arguments_hold() -> None:
    prompts = DatasetRef("prompts", "0123456789abcdef", 3)
    with planning() as calls:
        read(answer(prompts))
    assert [call.work.tokens for call in calls] == [{"sampled": 200}, {"scored": 6 * (60 + 10)}]
    assert contents_of(prompts) == Contents(rows=3, prompts=3)  # of the lake: their number alone

"""`dapflow run` and `plan` with programs and composites as judges, of the training pairs and of the result."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage import Lake
from tests.flows.test_llm_judge import run, words
from tests.flows.test_run import SMALL, dapflow

PROGRAMS = """
def nearer(prompt, first, second, answer):
    '''Whichever is nearer to the answer in length.'''
    return 0.5 + 0.5 * ((away(second, answer) > away(first, answer)) - (away(second, answer) < away(first, answer)))

def away(completion, answer):
    return abs(len(completion) - int(answer))
"""


@pytest.fixture
def programs(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(PROGRAMS)
    return str(tmp_path / "mine.py")


def prompts(path: Path, **fields: Any) -> str:
    """A file of prompts that all have these fields."""
    path.write_text("\n".join(json.dumps({"prompt": f"Say it {n} times.", **fields}) for n in range(12)))
    return f"prompts.source={path}"


@pytest.mark.usefixtures("prefect_server")
def test_a_program_compares_with_the_reference_answer_and_another_measures(
    tmp_path: Path, programs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (prompts(tmp_path / "prompts.jsonl", answer=20), f"judge={programs}:nearer", "evaluation.judge=shorter")
    code, plan, err = run("plan", tmp_path / "lake", capsys, *settings)
    assert code == 0, err
    code, result, err = run("run", tmp_path / "lake", capsys, *settings)
    assert code == 0, err
    [title] = [step["name"] for step in result["steps"] if step["name"].startswith("compare 12")]
    assert title.endswith("by mine.py:nearer")
    [one] = result["iterations"]
    assert one["judges"]["evaluation"] == {"judge": "shorter"}
    assert (one["judges"]["training"]["judge"], one["judges"]["training"]["consistency"]) == ("mine.py:nearer", 1.0)
    with Lake(tmp_path / "lake", read_only=True) as lake:
        assert {row["answer"] for row in lake.rows("SELECT answer FROM prompts")} == {"20"}
        pairs = lake.rows("SELECT chosen, rejected FROM pairs WHERE dropped IS NULL AND source = 'compared'")
    assert len(pairs) == one["pairs"] > 0
    assert all(abs(len(pair["chosen"]) - 20) < abs(len(pair["rejected"]) - 20) for pair in pairs)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("fields", "judge", "recipe", "message"),
    [
        ({}, "exact-answer", "rso", "The judge exact-answer needs the right answers, and no prompt has one"),
        ({"answer": []}, "exact-answer", "rso", "prompts.jsonl:3: `answer` must be the right answer as text or a number, not []"),
        ({"unsafe": 1}, "shorter", "rso", "prompts.jsonl:3: `unsafe` must be true or false, not 1"),
        ({"answer": "1"}, "{programs}:nearer", "rso", "a judge that compares two answers gives no scores, without which there is no accept"),
        ({"answer": "1"}, "{programs}:away", "rso", None),  # takes a completion and the answer: (completion, answer) is not enough
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, programs: str, fields: dict[str, Any], judge: str, recipe: str, message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = words(prompts(tmp_path / "prompts.jsonl", **fields), f"judge={judge.format(programs=programs)}")
    code, _, err = dapflow("run", recipe, "--toy", "--lake", str(tmp_path / "lake"), *SMALL, *settings, capsys=capsys)
    assert code == 2
    assert (message or "takes completion, answer: it must take (prompt, completion)") in err

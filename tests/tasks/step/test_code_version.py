"""The code version covers what a step calls, not only its own source; words about the code do not
count.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapflow.tasks.judging.kinds import KINDS
from dapflow.tasks.step import code_version as module
from dapflow.tasks.step.code_version import code_version
from tests.helpers import ROOT


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "mysteps"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "step.py").write_text(
        "from mysteps.helper import double\n\n\ndef run(x):\n    return double(x)\n"
    )
    (folder / "helper.py").write_text(
        "from mysteps import deeper\n\n\ndef double(x):\n    return deeper.times(x, 2)\n"
    )
    (folder / "deeper.py").write_text("def times(x, n):\n    return x * n\n")
    (folder / "unrelated.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("mysteps")]:
        del sys.modules[name]


def version(name: str = "mysteps.step") -> str:
    for cached in (
        code_version,
        module._is_module,
        module._source,
        module._imports,
        module._tree_digest,
    ):
        cached.cache_clear()
    return code_version(name)


@pytest.mark.parametrize("file", ["step.py", "helper.py", "deeper.py"])
def test_a_change_in_the_step_or_in_any_helper_below_it_changes_the_version(
    package: Path, file: str
) -> None:
    before = version()
    (package / file).write_text((package / file).read_text().replace("x", "y"))
    assert version() != before


def test_comments_docstrings_and_unrelated_files_do_not(package: Path) -> None:
    before = version()
    (package / "deeper.py").write_text(
        '"""Multiplication."""\n\n\ndef times(x, n):\n    """n times x."""\n    # quickly\n    return x * n\n'
    )
    (package / "unrelated.py").write_text("x = 2\n")
    assert version() == before


def test_what_is_found_by_name_alone_is_left_to_whoever_names_it(package: Path) -> None:
    """So is a loss of the trainings that are given it (`Loss.content`)."""
    (package / "helper.py").write_text(
        "from importlib import import_module\n\n\ndef double(x):\n"
        "    return import_module('mysteps.deeper').times(x, 2)\n"
    )
    before, named = version(), version("mysteps.deeper")
    (package / "deeper.py").write_text("def times(x, n):\n    return n * x\n")
    assert version() == before
    assert version("mysteps.deeper") != named


def test_the_real_steps_cover_their_engines_and_how_losses_are_found() -> None:
    assert "dapflow.tasks.sampling.engines.transformers" in module._closure(
        "dapflow.tasks.sampling.sample"
    )
    assert {
        "dapflow.tasks.training.losses.registry",
        "dapflow.tasks.models.packed.head",
        "dapflow.tasks.models.chat",
    } <= module._closure("dapflow.tasks.training.train")
    assert "dapflow.tasks.step" not in module._closure("dapflow.tasks.sampling.sample")


def step_modules() -> list[str]:
    """The modules of the project that hold a step."""
    files = sorted((ROOT / "tasks").rglob("*.py"))
    holding = (f for f in files if re.search(r"^@step\(", f.read_text("utf-8"), re.MULTILINE))
    return [".".join(("dapflow", *f.relative_to(ROOT).with_suffix("").parts)) for f in holding]


def test_the_steps_are_found() -> None:
    names = ("prompts.load", "sampling.sample", "judging.score", "training.train")
    assert {f"dapflow.tasks.{name}" for name in names} <= set(step_modules())


@pytest.mark.parametrize(
    "name", [name for name in step_modules() if not name.startswith("dapflow.tasks.training.")]
)
def test_no_step_outside_training_depends_on_how_anything_is_trained(name: str) -> None:
    assert not [part for part in module._closure(name) if part.startswith("dapflow.tasks.training")]


@pytest.mark.parametrize("name", ["train", "answers", "rounds.online", "reward.train"])
def test_no_training_depends_on_a_loss_that_it_is_not_given(name: str) -> None:
    losses = "dapflow.tasks.training.losses."
    closure = module._closure(f"dapflow.tasks.training.{name}")
    folders = {
        part for part in closure if part.startswith((f"{losses}pairs.", f"{losses}answers."))
    }
    assert folders == ({f"{losses}pairs.label"} if name == "reward.train" else set())  # its own
    assert (f"{losses}bradley_terry" in closure) == (name == "reward.train")
    assert not {f"{losses}policy_gradient", f"{losses}cringe"} & closure


def training_files() -> list[str]:
    """The modules that train."""
    files = sorted((ROOT / "tasks" / "training").rglob("*.py"))
    return [".".join(("dapflow", *f.relative_to(ROOT).with_suffix("").parts)) for f in files]


@pytest.mark.parametrize("edited", training_files())
def test_editing_a_file_of_training_leaves_prompts_completions_and_verdicts_as_they_were(
    edited: str,
) -> None:
    steps = [name for name in step_modules() if not name.startswith("dapflow.tasks.training.")]
    kinds = [place.partition(":")[0] for place in KINDS.values()]  # found by name, see kinds.py
    assert len(steps) > 20
    assert not [name for name in (*steps, *kinds) if edited in module._closure(name)]


def test_prompts_depend_on_no_model_and_samples_on_no_judge() -> None:
    for name in ("load", "preferences"):
        stages = stages_of(module._closure(f"dapflow.tasks.prompts.{name}"))
        assert stages <= {"prompts", "seeds"}
    assert "judging" not in stages_of(module._closure("dapflow.tasks.sampling.sample"))


def stages_of(modules: set[str]) -> set[str]:
    """The folders of tasks/ that modules are in."""
    return {name.split(".")[2] for name in modules if name.count(".") > 1}


def test_what_a_step_says_of_its_title_and_its_work_is_no_part_of_a_version(package: Path) -> None:
    declared = (
        "\n\n\n@step('prompts', title='{}', work=lambda **_: work.much({}))\ndef made(): ...\n"
    )
    text = (package / "step.py").read_text() + "from mysteps import work\n"
    (package / "work.py").write_text("def much(x):\n    return x\n")
    (package / "step.py").write_text(text + declared.format("a", 1))
    before = version()
    (package / "work.py").write_text("def much(x):\n    return 2 * x\n")
    (package / "step.py").write_text(text + declared.format("b", 2))
    assert version() == before
    (package / "step.py").write_text(text + declared.format("b", 2).replace("prompts", "pairs"))
    assert version() != before

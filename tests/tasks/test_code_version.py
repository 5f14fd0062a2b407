"""The code version covers what a step calls, not only its own source; words about the code do not count."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import code_version as module
from tasks.code_version import code_version


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "mysteps"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "step.py").write_text("from mysteps.helper import double\n\n\ndef run(x):\n    return double(x)\n")
    (folder / "helper.py").write_text("from mysteps import deeper\n\n\ndef double(x):\n    return deeper.times(x, 2)\n")
    (folder / "deeper.py").write_text("def times(x, n):\n    return x * n\n")
    (folder / "unrelated.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("mysteps")]:
        del sys.modules[name]


def version(name: str = "mysteps.step") -> str:
    for cached in (module.code_version, module._is_module, module._source):
        cached.cache_clear()
    return code_version(name)


@pytest.mark.parametrize("file", ["step.py", "helper.py", "deeper.py"])
def test_a_change_in_the_step_or_in_any_helper_below_it_changes_the_version(package: Path, file: str) -> None:
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


def test_the_real_steps_cover_their_engines_and_losses() -> None:
    assert "tasks.engines.transformers" in module._closure("tasks.sampling")
    assert {"tasks.training.losses", "tasks.training.head", "tasks.chat"} <= module._closure("tasks.training.train")
    assert "tasks.step" not in module._closure("tasks.sampling")


def step_modules() -> list[str]:
    """The modules of the project that hold a step."""
    root = Path(module.__file__).parent
    files = (file for file in sorted(root.rglob("*.py")) if re.search(r"^@step\(", file.read_text(encoding="utf-8"), re.MULTILINE))
    return [".".join(("tasks", *file.relative_to(root).with_suffix("").parts)) for file in files]


LEARNING = {
    f"tasks.training.{name}" for name in ("losses", "fit", "optimizer", "settings", "policy_gradient", "train", "reward", "backbone")
}


@pytest.mark.parametrize("name", [name for name in step_modules() if not name.startswith("tasks.training.")])
def test_no_step_outside_training_depends_on_how_anything_is_trained(name: str) -> None:
    assert not LEARNING & module._closure(name)


def test_the_steps_are_found() -> None:
    assert {"tasks.prompts", "tasks.sampling", "tasks.judging", "tasks.training.train"} <= set(step_modules())


def test_prompts_depend_on_no_model_and_samples_on_no_judge() -> None:
    loading = {part for step in ("tasks.prompts", "tasks.preferences") for name in module._closure(step) for part in name.split(".")}
    assert not loading & {"models", "engines", "judges", "training", "chat"}
    assert not {name for name in module._closure("tasks.sampling") if {"judges", "judging", "comparing"} & set(name.split("."))}

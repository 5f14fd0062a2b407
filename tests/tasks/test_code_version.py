"""The code version covers what a step calls, not only its own source; words about the code do not count."""

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

"""The house: which code may import which, where files lie, and that each step has a name of its own."""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

FOLDERS = ("deployments", "flows", "tasks", "storage")
"""Code points one way: each may import those after it."""
STAGES = (
    "training", "evaluation", "pairing", "judging", "self_instruct", "sampling", "models",
    "servers", "prompts", "step", "",
)  # fmt: skip
"""The folders of tasks/, likewise; the last are the files beside them."""
BESIDE_EACH_OTHER = ({"training", "evaluation"}, {"servers", "prompts"}, {"models", "servers"})
FILES = {
    "dapflow." + ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): (
        file
    )
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*.py"))
}


def imported(file: Path) -> Iterator[str]:
    """The modules of the project that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in FILES else node.module


def stage(name: str) -> str:
    """The folder of tasks/ that a module is in."""
    parts = name.split(".")
    folder = (ROOT / "tasks").joinpath(*parts[2:3])
    return parts[2] if len(parts) > 2 and folder.is_dir() else ""


@pytest.mark.parametrize("name", sorted(FILES))
def test_code_points_one_way(name: str) -> None:
    own = name.split(".")[1]
    for other in imported(FILES[name]):
        folder = other.split(".")[1]
        assert FOLDERS.index(own) <= FOLDERS.index(folder), f"{name} imports {other}"
        if own == folder == "tasks" and stage(name) != stage(other):
            assert STAGES.index(stage(name)) < STAGES.index(stage(other)), f"{name}: {other}"
            assert {stage(name), stage(other)} not in BESIDE_EACH_OTHER, f"{name}: {other}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {name: set(imported(file)) - {name} for name, file in FILES.items()}
    while leaves := [name for name, others in edges.items() if not others & edges.keys()]:
        for name in leaves:
            del edges[name]
    assert not edges


def test_the_stages_are_the_folders() -> None:
    folders = {file.name for file in (ROOT / "tasks").iterdir() if (file / "__init__.py").exists()}
    assert folders == set(STAGES) - {""}


def test_a_folder_is_read_at_a_glance() -> None:
    for folder in {file.parent for file in FILES.values()} | {
        file.parent for file in (ROOT / "tests").rglob("*.py")
    }:
        name = str(folder.relative_to(ROOT))
        files = [file for file in folder.iterdir() if file.is_file() and file.name != "README.md"]
        most = 12 if name in ("flows", "tasks") else 15
        if name not in ("storage", "tests/storage"):
            assert len(files) <= most, (
                f"{name} has {len(files)} files, at most {most}: put what belongs together into a "
                "folder of its own (CONTRIBUTING.md, The style)"
            )


def test_tests_share_helpers_and_know_only_what_is_public() -> None:
    """No test imports from another test, nor a private name of ours."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            module = (node.module or "").split(".")
            if module[0] not in ("dapflow", "tests"):
                continue
            names = [*module, *(alias.name for alias in node.names)]
            assert not any(name.startswith(("test_", "_")) for name in names), f"{file}: {names}"


def test_the_packages_of_the_distribution_are_the_folders() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {name for name, file in FILES.items() if file.name == "__init__.py"}
    assert set(told["packages"]) == (packages - {"dapflow.flows.dapflow"}) | {"dapflow"}
    for package, patterns in told["package-data"].items():
        folder = FILES[package].parent
        assert all(list(folder.glob(pattern)) for pattern in patterns), package


def test_each_step_has_a_name_of_its_own() -> None:
    pattern = re.compile(r"^@step\(.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
    names = Counter(name for file in FILES.values() for name in pattern.findall(file.read_text()))
    assert len(names) > 30
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_names_tests_that_there_are(name: str) -> None:
    for path in re.findall(r"tests/[\w/]+(?:\.py)?", FILES[name].read_text("utf-8")):
        assert (ROOT / path).exists(), f"{name} names {path}"

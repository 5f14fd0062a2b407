"""The code version of a step: a digest of its module and of every module of the project that this
one imports, directly or not.

A changed helper gives a new version, so a cached dataset is never stale; a changed comment or
docstring does not, nor does what a step declares of its title and its work. What is found by its
name while the step runs (`import_module`) is not in it: whatever value names it, such as a loss or
a judge, adds its version to the step's parameters (`NamesFiles`).
Test: pytest tests/tasks/step/test_code_version.py
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# How rows are cached, committed and shown does not change what is in them.
_PLUMBING = (
    "dapflow.tasks.step",
    "dapflow.tasks.judging.judges.desk.server",
    "dapflow.tasks.judging.judges.desk.suspending",
)
_PLANNED = "work"  # the name of modules that say how much a step does: a plan's estimates


@cache
def code_version(module: str) -> str:
    """16 hexadecimal digits over the syntax trees of `module` and of all that it imports of its own
    package (`dapflow.tasks` is one).
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        digest.update(f"{name}={_tree_digest(_source(name))}\n".encode())
    return digest.hexdigest()[:16]


def _closure(module: str) -> set[str]:
    closure: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in closure:
            continue
        closure.add(name)
        waiting += [
            other
            for other in _imports(_source(name), _package(name))
            if other not in closure and not _is_plumbing(other)
        ]
    return closure


def _package(name: str) -> str:
    """What a module belongs to: of ours `dapflow.tasks`, `dapflow.flows` ..., of a user's its
    top-level package.
    """
    parts = name.split(".")
    return ".".join(parts[:2] if parts[0] == "dapflow" else parts[:1])


def _is_plumbing(name: str) -> bool:
    return name.rpartition(".")[2] == _PLANNED or any(
        name == part or name.startswith(f"{part}.") for part in _PLUMBING
    )


@cache
def _imports(source: Path, package: str) -> frozenset[str]:
    """Modules of `package` that a file imports anywhere, also inside its functions."""
    return frozenset(_imported(source, package))


def _imported(source: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if _package(name) == package and _is_module(name):
                yield name


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    # `from dapflow.tasks.models.names import load`: load is a function, so
    # dapflow.tasks.models.names.load has no parent package
    except ModuleNotFoundError:
        return False


@cache
def _source(name: str) -> Path:
    if name == "__main__":
        return Path(str(sys.modules[name].__file__))
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return Path(spec.origin)


@cache
def _tree_digest(source: Path) -> str:
    tree = ast.parse(source.read_bytes())
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node):
            del node.body[0]
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "step":
                    decorator.keywords.clear()
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()

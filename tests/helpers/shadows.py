"""A folder whose files and folders are called like the modules that a process imports; each writes
down that it was executed.

executed = shadow(folder)      # then start something with cwd=folder
assert executed() == []
"""

import sys
from collections.abc import Callable
from pathlib import Path

_OURS = ("deployments", "flows", "storage", "tasks")
_OTHERS = (
    "accelerate",
    "numpy",
    "prefect",
    "psutil",
    "pydantic",
    "sitecustomize",
    "torch",
    "transformers",
    "uvicorn",
    "yaml",
)
_CODE = "import sys\nwith open({marker!r}, 'a') as marker:\n    marker.write({name!r} + ' by ' + ' '.join(sys.orig_argv) + '\\n')\n"


def shadow(folder: Path) -> Callable[[], list[str]]:
    """Fill the folder. Returns a function that says what has been executed of it, and by which
    command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder.parent / f"{folder.name}-executed"
    for name in (*sorted(sys.stdlib_module_names), *_OTHERS):
        (folder / f"{name}.py").write_text(_CODE.format(marker=str(marker), name=name))
    for name in _OURS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(_CODE.format(marker=str(marker), name=name))
    return lambda: marker.read_text().splitlines() if marker.exists() else []

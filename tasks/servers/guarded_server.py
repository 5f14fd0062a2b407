"""vLLM's server, or transformers', behind our door (tasks/servers/door.py): what `dapflow serve`
becomes.

    python -P tasks/servers/guarded_server.py transformers serve MODEL --host 127.0.0.1 --port 8000
    python -P tasks/servers/guarded_server.py vllm --model MODEL --host 127.0.0.1 --port 8000
It may run in vLLM's own environment, where this project is not installed: so it loads the door by
its path, and imports nothing else. Test: pytest tests/flows/cli/test_chat.py
"""

import runpy
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

_DOOR = "dapflow_door"


def main(kind: str, words: Sequence[str]) -> None:
    """Serve until a signal ends it."""
    door = _load(_DOOR, Path(__file__).with_name("door.py"))
    sys.argv = [kind, *words]
    if kind == "vllm":
        sys.argv += [
            "--middleware",
            f"{_DOOR}.Door",
        ]  # vLLM puts what it imports by that name around its application
        runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
        return
    from transformers.cli import transformers
    from transformers.cli.serving import server

    build = server.build_server

    def behind_the_door(*arguments: Any, **options: Any) -> Any:
        return door.Door(build(*arguments, **options))

    server.build_server = behind_the_door
    transformers.app()


def _load(name: str, path: Path) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "the name ends with .py"
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

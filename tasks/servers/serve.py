"""A server of one's own for as long as a step needs it: started, waited for, ended with the step or
with its process.

    with served("vllm serve {model} --port {port}", path, log) as base_url: ...
Test: pytest tests/tasks/servers/test_serve.py
"""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from dapflow.storage import UserError

HOST = "127.0.0.1"
_direct = build_opener(ProxyHandler({}))  # loopback is never reached through a proxy


@contextmanager
def served(
    command: str,
    model: Path,
    log: Path,
    *,
    minutes: float = 15.0,
    say: Callable[[str], None] = lambda sentence: None,
) -> Iterator[str]:
    """Start the command, with {model} and {port} filled in, and yield its base URL once it answers.
    Its output goes to `log`.

    Raises UserError when it ends by itself, or does not answer in time, with the last line that it
    said.
    """
    port = free_port()
    words = [
        word.replace("{model}", str(model)).replace("{port}", str(port))
        for word in shlex.split(command)
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "dapflow.tasks.servers.supervise", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        ) as server,
    ):
        try:
            say(f"starting `{command}` on port {port}; it writes to {log}")
            _wait(server, f"http://{HOST}:{port}/v1/models", command, log, minutes)
            yield f"http://{HOST}:{port}/v1"
        finally:
            assert server.stdin is not None
            server.stdin.close()  # the sign to end


def server_command(model: Path, port: int, dtype: str) -> tuple[list[str], str]:
    """The command that serves a model directory on loopback, behind the door, and the name that it
    knows the model by: vLLM's, else transformers' own."""
    python = os.environ.get("DAPFLOW_VLLM_PYTHON") or (
        sys.executable if find_spec("vllm") else None
    )
    start = [python or sys.executable, "-P", str(Path(__file__).with_name("guarded_server.py"))]
    options = ["--host", HOST, "--port", str(port), "--dtype", dtype]
    if python is None:
        return [*start, "transformers", "serve", str(model), *options], str(model)
    return [
        *start,
        "vllm",
        "--model",
        str(model),
        "--served-model-name",
        "policy",
        *options,
    ], "policy"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _wait(
    server: "subprocess.Popen[bytes]", url: str, command: str, log: Path, minutes: float
) -> None:
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        if server.poll() is not None:
            raise UserError(
                f"The server `{command}` ended before it answered ({_last_line(log)}): {log} has "
                "all it said."
            )
        try:
            with _direct.open(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.2)
    raise UserError(
        f"The server `{command}` has not answered at {url} in {minutes:g} minutes "
        f"({_last_line(log)}): {log} has all it said."
    )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"

"""Runs a command and ends it, with all it has started, when its own input ends: with the process
that asked for it, however that dies.

    python -m dapflow.tasks.servers.supervise vllm serve MODEL --port 8001
Test: pytest tests/tasks/servers/test_serve.py
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import psutil

_GRACE_SECONDS = 10
SAFE_PATH = "dapflow"
"""PYTHONSAFEPATH of our own processes: any value keeps the working directory off their path, and
this one says who has set it.
"""


def main(command: Sequence[str]) -> int:
    """Its exit status."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=users_environment(), start_new_session=True
    )
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: end(child))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return child.wait()


def users_environment() -> dict[str, str]:
    """The environment as the user has it: their command may be a module of the folder that they
    stand in.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if (name, value) != ("PYTHONSAFEPATH", SAFE_PATH)
    }


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the command and its descendants to end; after some seconds, make them."""
    try:
        family = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        _send(process, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
    for process in left:
        _send(process, signal.SIGKILL)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _watch(child: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    end(child)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

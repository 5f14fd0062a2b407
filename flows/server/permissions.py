"""What runs may execute beside our own code: never what only their parameters say, which whoever
reaches the server can write.

What `dapflow run` and `dapflow deploy` were given on this machine is remembered, as digests, one a
line, in a file of the user's cache directory (another one: DAPFLOW_ALLOWED); recipe files of this
machine say it themselves. DAPFLOW_ALLOW_COMMANDS=1 (`dapflow worker --allow-commands`) allows all.
Test: pytest tests/flows/server/test_permissions.py
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_cache_path

from dapflow.flows.server.environment import ALLOW


def remember(executed: Iterable[str]) -> None:
    """Allow runs on this machine, of this user, to execute these from now on."""
    if new := sorted({_digest(each) for each in executed} - _known()):
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("\n".join(["", *new, ""]))


def is_allowed(executed: str) -> bool:
    """Whether a run may execute this."""
    return os.environ.get(ALLOW) == "1" or _digest(executed) in _known()


def _digest(executed: str) -> str:
    return hashlib.sha256(executed.encode(errors="surrogatepass")).hexdigest()


def _known() -> set[str]:
    path = _file()
    return set(path.read_text(errors="replace").split()) if path.is_file() else set()


def _file() -> Path:
    return Path(os.environ.get("DAPFLOW_ALLOWED") or user_cache_path("dapflow") / "allowed.txt")

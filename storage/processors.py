"""How many processors this process may use: those it is bound to, and no more than its control
group's quota (a container's `--cpus`).

Test: pytest tests/storage/test_processors.py
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def processors(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """At least 1. groups: where control groups are mounted; own: the file that names this
    process's.
    """
    bound = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )  # not on macOS
    return max(1, min([bound, *(math.ceil(quota) for quota in _quotas(groups, own))]))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Processors that each control group above this process allows, of version 2 (`cpu.max`) or 1."""
    for folder in _folders(groups, own):
        if (words := _words(folder / "cpu.max")) and words[0] != "max":
            yield int(words[0]) / int(words[1])
        quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if quota and period and int(quota[0]) > 0:  # -1: no limit
            yield int(quota[0]) / int(period[0])


def _folders(groups: Path, own: Path) -> Iterator[Path]:
    """The process's groups and all above them. In a container its own group is mounted as the root."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        root = groups if not controllers else groups / controllers
        if not controllers or "cpu" in controllers.split(","):
            inside = Path(name.lstrip("/"))
            yield from (root / part for part in (inside, *inside.parents))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:  # not this version, or not mounted
        return []

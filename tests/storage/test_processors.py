"""How many processors there are for this process: by what it is bound to, and by its control group.
Run: pytest this file.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dapflow.storage.processors import processors

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(folder: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Control groups as files, and the file that names this process's."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(f"{line}\n")
    return folder, folder / "own"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        (
            "0::/a/b",
            {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"},
            1,
        ),  # half a processor is rounded up
        ("0::/a/b", {"a/b/cpu.max": "max 100000"}, HERE),
        (
            "4:cpu,cpuacct:/box",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "90000",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            "4:cpu,cpuacct:/box",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            HERE,
        ),
        ("4:memory:/box", {"memory/box/cpu.max": "100000 100000"}, HERE),
        ("0::/", {"cpu.max": "6400000 100000"}, HERE),  # more than there are
    ],
)
def test_a_quota_counts_as_so_many_processors(
    tmp_path: Path, line: str, files: dict[str, str], expected: int
) -> None:
    assert processors(*_groups(tmp_path, line, files)) == expected


def test_without_control_groups_it_is_what_the_process_is_bound_to(tmp_path: Path) -> None:
    assert processors(tmp_path, tmp_path / "none") == HERE


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_that_is_bound_to_a_processor_has_a_duckdb_of_one_thread() -> None:
    script = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from dapflow.storage.database import new_instance\n"
        "print(new_instance().execute(\"SELECT current_setting('threads')\").fetchone()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"

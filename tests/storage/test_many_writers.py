"""Several processes write one lake at once: nothing is lost and no error reaches a caller.

python -m tests.storage.test_many_writers            # 8 processes, 50 versions each
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from dapflow.storage import Lake
from dapflow.storage.files import verify
from tests.helpers.lakes import numbered

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.helpers.lakes", "dapflow.storage.files"])


def write_versions(address: str, first: int, count: int) -> None:
    """A writer: versions `first` and on."""
    with Lake(address) as lake:
        for number in range(first, first + count):
            numbered(lake, number)


def check(address: str, processes: int, versions: int) -> None:
    """Let so many processes write so many versions each, then look whether all is there."""
    Lake(address).close()
    writers = [
        FORKED.Process(target=write_versions, args=(address, n * versions, versions))
        for n in range(processes)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * processes
    total = processes * versions
    with Lake(address, read_only=True) as lake:
        assert lake.rows("SELECT count(*) AS n FROM versions WHERE state = 'complete'") == [
            {"n": total}
        ]
        assert lake.rows("SELECT count(*) AS n, count(DISTINCT id) AS d FROM prompts") == [
            {"n": 6 * total, "d": 6 * total}
        ]
        assert [ref for ref, damages in verify(lake) if damages] == []


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    check(str(tmp_path / "lake"), processes=3, versions=4)


def main() -> None:
    """The full count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--versions", type=int, default=50, help="each process")
    parser.add_argument("--lake", help="an address; a new directory if none is given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        check(arguments.lake or folder, arguments.processes, arguments.versions)
    total = arguments.processes * arguments.versions
    print(
        f"{arguments.processes} processes wrote {total} versions in {time.monotonic() - started:.0f} s: all there",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()

"""Several processes write one lake at once: nothing is lost and no error reaches a caller.

python -m tests.storage.test_many_writers            # 8 processes, 50 versions each
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.writers import check_writers


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    check_writers(str(tmp_path / "lake"), processes=3, versions=4)


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
        check_writers(arguments.lake or folder, arguments.processes, arguments.versions)
    total = arguments.processes * arguments.versions
    print(
        f"{arguments.processes} processes wrote {total} versions in {time.monotonic() - started:.0f} s: all there",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()

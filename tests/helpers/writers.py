"""Processes that write a lake at once, or are killed at it: forked from one that has imported what
they need. Used by tests/storage, and by tests/tasks/judging/asking.
"""

import multiprocessing

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


def check_writers(address: str, processes: int, versions: int) -> None:
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

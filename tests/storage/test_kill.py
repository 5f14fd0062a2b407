"""`kill -9` at a random moment of a writer, over all of its phases: whole versions, nothing
doubled, nothing lost.

python -m tests.storage.test_kill            # 200 kills
"""

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dapflow.storage import DatasetRef, Lake, OpenVersion, Ref
from dapflow.storage.chunks import Chunks
from dapflow.storage.files import verify
from dapflow.storage.versions import Opening, open_version
from tests.helpers.lakes import named
from tests.helpers.writers import FORKED

CHUNKS, ROWS = 4, 40
PHASES = ["open", *[f"chunk {number}" for number in range(CHUNKS + 1)], "publish", "complete"]
LONGEST = 0.04  # seconds: longer than any phase takes, so the next one is hit as well


def write_one(lake: Lake, version: str) -> Ref:
    """A version of completions in small chunks, with a chunk of metrics."""
    with open_version(
        lake, Opening(kind="completions", version=version, step="sample", code="c", parameters={})
    ) as opened:
        if not isinstance(opened, OpenVersion):
            return opened
        for chunk in range(CHUNKS):
            opened.write(
                chunk,
                [
                    {"id": opened.row_id(n), "text": f"{version} {n}"}
                    for n in range(chunk * ROWS, (chunk + 1) * ROWS)
                ],
            )
        opened.write(
            CHUNKS, [{"id": opened.row_id(0), "name": "loss", "value": 1.0}], table="metrics"
        )
        return opened.complete({"policy": "p"}, None, None)


def writer(address: str, version: str, phases: Connection) -> None:
    """Write a version, and say which phase begins."""

    def announced(owner: type, name: str, phase: Callable[..., str]) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            phases.send(phase(*arguments))
            return function(*arguments, **options)

        setattr(owner, name, call)

    announced(Chunks, "write", lambda _, number, *rest: f"chunk {number}")
    announced(Chunks, "publish", lambda _: "publish")
    announced(Lake, "commit", lambda _, work, message, *rest: message.split()[0])
    with Lake(address) as lake:
        write_one(lake, version)


def kill_one(address: str, version: str, phase: str, delay: float) -> bool:
    """Start a writer and kill it so many seconds after a phase has begun. Whether it was still
    alive then.
    """
    ours, its = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=writer, args=(address, version, its))
    process.start()
    its.close()
    while ours.recv() != phase:
        pass
    time.sleep(delay)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    ours.close()
    return process.exitcode == -signal.SIGKILL


def check(kills: int, seed: int) -> collections.Counter[str]:
    """Kill so many writers of one lake, each in turn followed by one that is left alone. Returns
    how often each phase was hit.
    """
    draw, hits = random.Random(seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder, Lake(folder) as lake:
        texts: dict[str, list[str]] = {}
        while sum(hits.values()) < kills:
            version, phase = named(f"killed {len(texts)}"), PHASES[sum(hits.values()) % len(PHASES)]
            if kill_one(folder, version, phase, draw.uniform(0, LONGEST)):
                hits[phase] += 1
            texts[version] = [f"{version} {n}" for n in range(CHUNKS * ROWS)]
            found = lake.find(version)
            assert found is None or texts[version] == [row["text"] for row in lake.rows_of(found)]
            assert found is not None or not lake.rows(
                "SELECT * FROM completions WHERE version = ?", [version]
            )
            write_one(lake, version)
        assert {
            version: [row["text"] for row in lake.rows_of(DatasetRef("completions", version, 0))]
            for version in texts
        } == texts
        assert (
            lake.rows("SELECT count(*) AS n FROM metrics")
            == lake.rows("SELECT count(*) AS n FROM edges")
            == [{"n": len(texts)}]
        )
        assert [ref for ref, damages in verify(lake) if damages] == []
        assert not any(Path(folder, "checkpoints").iterdir())
    return hits


def test_a_writer_killed_at_any_moment_leaves_whole_versions_and_the_rerun_ends_with_the_same_rows() -> (
    None
):
    assert check(kills=len(PHASES), seed=0).keys() == set(PHASES)


def main() -> None:
    """The full count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    hits = check(arguments.kills, arguments.seed)
    print(
        f"{hits.total()} writers killed in {time.monotonic() - started:.0f} s, every row there once: {dict(hits)}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()

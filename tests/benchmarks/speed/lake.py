"""The lake, side by side with pyarrow's Parquet writer where there is one to compare with, and as a
curve where there is not.

    python -m tests.benchmarks.speed.lake commit               # 1,000,000 completions of 100 tokens, ids and text
    python -m tests.benchmarks.speed.lake lineage              # one pair's lineage in lakes of 100 thousand to 10 million completions
    python -m tests.benchmarks.speed.lake open                 # opening a lake, and asking whether versions exist
    python -m tests.benchmarks.speed.lake memory               # while writing and exporting
Medians of --repeats runs in one process; needs about 4 GB of disk for the largest lake.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dapflow.storage import Lake, OpenVersion
from dapflow.storage.export import export
from dapflow.storage.lineage import trace
from dapflow.storage.versions import Opening, open_version
from tests.helpers.lakes import initial_policy, iteration, named

TOKENS, CHUNK, VERSIONS = 100, 50_000, 200
_WORDS = np.array(
    [
        "the",
        "model",
        "answers",
        "a",
        "question",
        "about",
        "preference",
        "and",
        "reward",
        "with",
        "some",
        "care",
        "while",
    ]
)


def completions(version: str, first: int, count: int) -> pa.Table:
    """`count` completions of TOKENS tokens: ids, and the text of as many words."""
    random = np.random.default_rng(first)
    zipf = np.minimum(random.zipf(1.3, count * TOKENS), 49151).astype(np.int32)
    offsets = np.arange(0, count * TOKENS + 1, TOKENS, dtype=np.int32)
    text = [" ".join(words) for words in _WORDS[zipf % len(_WORDS)].reshape(count, TOKENS)]
    names = [f"{version}-{place:08d}" for place in range(first, first + count)]
    columns = {
        "id": names,
        "text": text,
        "token_ids": pa.ListArray.from_arrays(offsets, zipf),
        "seed": np.arange(first, first + count),
    }
    return pa.table(columns)


def commit(rows: int, repeats: int) -> None:
    """Rows per second into an open version, merged, checksummed and complete, against pyarrow
    writing the same tables.
    """
    version = named("bench")
    tables = [
        completions(version, first, min(CHUNK, rows - first)) for first in range(0, rows, CHUNK)
    ]
    print(
        f"{rows:,} completions of {TOKENS} tokens, {sum(one.nbytes for one in tables) / 2**20:,.0f} MiB in memory, {len(tables)} chunks"
    )
    seconds: dict[str, list[float]] = {
        "pyarrow, zstd": [],
        "lake, chunks": [],
        "lake, complete": [],
    }
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            with pq.ParquetWriter(
                Path(folder) / "rows.parquet", tables[0].schema, compression="zstd"
            ) as writer:
                for table in tables:
                    writer.write_table(table)
            seconds["pyarrow, zstd"].append(time.perf_counter() - started)
            size = (Path(folder) / "rows.parquet").stat().st_size
        with tempfile.TemporaryDirectory() as folder, Lake(folder) as lake:
            started = time.perf_counter()
            with open_version(
                lake,
                Opening(kind="completions", version=version, step="sample", code="", parameters={}),
            ) as opened:
                assert isinstance(opened, OpenVersion)
                for number, table in enumerate(tables):
                    opened.write(number, table)
                seconds["lake, chunks"].append(time.perf_counter() - started)
                opened.complete({}, None, None)
            seconds["lake, complete"].append(time.perf_counter() - started)
            ours = sum(path.stat().st_size for path in Path(folder, "data").rglob("*.parquet"))
    base = median(seconds["pyarrow, zstd"])
    for name, times in seconds.items():
        print(
            f"{name:<16} {median(times):6.2f} s  {rows / median(times):10,.0f} rows/s  ratio to pyarrow's rate {base / median(times):5.2f}"
        )
    print(f"size on disk: pyarrow {size / 2**20:,.0f} MiB, lake {ours / 2**20:,.0f} MiB")


def lineage(largest: int, repeats: int) -> None:
    """Milliseconds for one pair's full lineage, in an open lake and as a command, by the number of
    completions.
    """
    print(
        f"{'completions':>12} {'versions':>9} {'open lake, ms':>14} {'command, s':>11} {'of it imports':>14}"
    )
    rows = 100_000
    while rows <= largest:
        with tempfile.TemporaryDirectory() as folder:
            with Lake(folder) as lake:
                policy = initial_policy(lake)
                for number in range(VERSIONS):
                    made = iteration(
                        lake, number, policy, prompts=rows // VERSIONS // 10, n=10, tokens=2
                    )
                    policy = made["trained"]
                    if number == VERSIONS // 2:
                        pair = f"{made['pairs'].version}-{made['pairs'].rows // 2:08d}"
                versions = len(lake.catalogue().versions)
                trace(lake, pair)
                opened = [_seconds(lambda: trace(lake, pair)) for _ in range(repeats)]  # noqa: B023 (called at once)
            command = [
                _seconds(lambda: _run("lineage", pair, "--lake", folder))  # noqa: B023 (called at once)
                for _ in range(repeats)
            ]
            imports = [_seconds(lambda: _run("lineage", "--help")) for _ in range(repeats)]
        print(
            f"{rows:>12,} {versions:>9,} {1000 * median(opened):>14.1f} {median(command):>11.2f} {median(imports):>14.2f}",
            flush=True,
        )
        rows *= 10


def opening(repeats: int) -> None:
    """Milliseconds to open a lake of 2,000 versions and to ask for one, and for 100 look-ups."""
    with tempfile.TemporaryDirectory() as folder:
        with Lake(folder) as lake:
            policy = initial_policy(lake)
            for number in range(VERSIONS):
                made = iteration(lake, number, policy)
                policy = made["trained"]
            wanted = made["pairs"].version

        def open_and_find() -> None:
            with Lake(folder) as lake:
                assert lake.find(wanted)

        _seconds(open_and_find)
        print(
            f"open and find: {1000 * median(_seconds(open_and_find) for _ in range(repeats)):.1f} ms in process"
        )
        with Lake(folder) as lake:
            lookups = [
                _seconds(lambda: [lake.find(wanted) for _ in range(100)]) for _ in range(repeats)
            ]
        print(f"100 look-ups: {1000 * median(lookups):.1f} ms")


def memory() -> None:
    """Peak memory of a process that writes, merges and exports versions of growing size, chunk by
    chunk.
    """
    print(
        f"{'completions':>12} {'in memory, MiB':>15} {'after writing':>14} {'after completing':>17} {'after exporting':>16}"
    )
    for rows in (250_000, 1_000_000, 4_000_000):
        script = f"from tests.benchmarks.speed.lake import peak; peak({rows})"
        print(
            subprocess.run(
                [sys.executable, "-c", script], check=True, capture_output=True, text=True
            ).stdout.rstrip(),
            flush=True,
        )


def peak(rows: int) -> None:
    """One line of the table of `memory`."""
    version, total = named("bench"), 0
    with tempfile.TemporaryDirectory() as folder, Lake(Path(folder) / "lake") as lake:
        with open_version(
            lake,
            Opening(kind="completions", version=version, step="sample", code="", parameters={}),
        ) as opened:
            assert isinstance(opened, OpenVersion)
            for chunk in range(rows // 10_000):
                table = completions(version, chunk * 10_000, 10_000)
                total += table.nbytes
                opened.write(chunk, table)
            written = _peak()
            ref = opened.complete({}, None, None)
        completed = _peak()
        export(lake, ref, Path(folder) / "rows.jsonl")
    print(
        f"{rows:>12,} {total / 2**20:>15,.0f} {written:>14,.0f} {completed:>17,.0f} {_peak():>16,.0f}"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run(*arguments: str) -> None:
    program = shutil.which("dapflow", path=str(Path(sys.executable).parent))
    assert program is not None
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["commit", "lineage", "open", "memory"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, help="completions: 1,000,000 for commit, at most 10,000,000 for lineage"
    )
    arguments = parser.parse_args()
    if arguments.what == "commit":
        commit(arguments.rows or 1_000_000, arguments.repeats)
    elif arguments.what == "lineage":
        lineage(arguments.rows or 10_000_000, arguments.repeats)
    elif arguments.what == "open":
        opening(arguments.repeats)
    else:
        memory()


if __name__ == "__main__":
    main()

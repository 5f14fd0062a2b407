"""Versions: chunks exactly once, readable only when complete, never overwritten, made again when their data is gone."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import DatasetRef, Lake, LakeError, OpenVersion, Ref, version_digest
from storage.files import intact
from storage.versions import open_version

FACTS = {"kind": "prompts", "step": "load", "code": "c", "parameters": {"seed": 1}}


def prompt_rows(opened: OpenVersion, chunk: int, count: int = 3) -> list[dict[str, object]]:
    return [{"id": opened.row_id(chunk * count + n), "prompt": f"prompt {chunk}.{n}", "parents": []} for n in range(count)]


def complete(lake: Lake, version: str, chunks: int = 2) -> Ref:
    with open_version(lake, version=version, **FACTS) as opened:
        if isinstance(opened, Ref):
            return opened
        for chunk in range(chunks):
            opened.write(chunk, prompt_rows(opened, chunk))
        return opened.complete({"source": "aaaa"}, "flow", "task")


def test_a_version_is_a_digest_of_everything_that_decides_its_rows() -> None:
    base = version_digest("s", "c", {"a": 1}, {"p": "x"})
    assert base == version_digest("s", "c", {"a": 1}, {"p": "x"})
    changed = [
        ("t", "c", {"a": 1}, {"p": "x"}),
        ("s", "d", {"a": 1}, {"p": "x"}),
        ("s", "c", {"a": 2}, {"p": "x"}),
        ("s", "c", {"a": 1}, {"p": "y"}),
    ]
    assert len({base, *(version_digest(*one) for one in changed)}) == 5


def test_complete_rows_come_back_in_order_with_lineage(lake: Lake) -> None:
    ref = complete(lake, "v1")
    assert (ref.kind, ref.version, ref.rows) == ("prompts", "v1", 6)
    assert [row["prompt"] for row in lake.read(ref)] == ["prompt 0.0", "prompt 0.1", "prompt 0.2", "prompt 1.0", "prompt 1.1", "prompt 1.2"]
    assert [row["id"] for row in lake.read(ref)] == [f"v1-{n:08d}" for n in range(6)]
    assert lake.rows("SELECT * FROM edges") == [{"child": "v1", "parent": "aaaa", "role": "source"}]
    [facts] = lake.rows("SELECT step, state, parameters, code, rows, flow_run_id, task_run_id FROM versions")
    assert facts | {"parameters": json.loads(facts["parameters"])} == {
        "step": "load", "state": "complete", "parameters": {"seed": 1}, "code": "c", "rows": 6, "flow_run_id": "flow", "task_run_id": "task",
    }  # fmt: skip


def test_an_open_version_does_not_exist_for_readers(lake: Lake) -> None:
    with open_version(lake, version="v1", **FACTS) as opened:
        assert isinstance(opened, OpenVersion)
        opened.write(0, prompt_rows(opened, 0))
        assert lake.find("v1") is None
        with pytest.raises(LakeError, match="not a complete version"):
            lake.read(DatasetRef("prompts", "v1", 3))


def test_a_step_that_died_does_only_what_is_missing(lake: Lake) -> None:
    with pytest.raises(RuntimeError), open_version(lake, version="v1", **FACTS) as opened:
        assert isinstance(opened, OpenVersion)
        opened.write(0, prompt_rows(opened, 0))
        raise RuntimeError("died")
    with open_version(lake, version="v1", **FACTS) as opened:
        assert isinstance(opened, OpenVersion)
        assert opened.done == {0}
        opened.write(0, prompt_rows(opened, 0))  # committed already: left as it is
        opened.write(1, prompt_rows(opened, 1))
        assert opened.complete({}, None, None).rows == 6
    assert len(lake.rows("SELECT * FROM prompts")) == 6


def test_a_complete_version_is_found_not_made_again(lake: Lake) -> None:
    complete(lake, "v1")
    with open_version(lake, version="v1", **FACTS) as found:
        assert isinstance(found, Ref)
        assert found.rows == 6


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: os.truncate(file, 100)], ids=["gone", "truncated"])
def test_a_version_whose_files_are_damaged_is_made_again(lake: Lake, damage: Callable[[Path], None]) -> None:
    def fill() -> Ref:
        with open_version(lake, version="v1", **FACTS) as opened:
            if isinstance(opened, Ref):
                return opened
            opened.write(0, prompt_rows(opened, 0, count=2000))
            return opened.complete({}, None, None)

    ref = fill()
    files = list((lake.root / "data").rglob("*.parquet"))
    assert files
    for file in files:
        damage(file)
    assert not intact(lake, ref)
    assert fill().rows == 2000
    assert len(lake.read(ref)) == 2000


def test_a_lake_can_be_moved(lake: Lake, tmp_path: Path) -> None:
    ref = complete(lake, "v1", chunks=50)
    lake.close()
    shutil.move(lake.root, tmp_path / "elsewhere")
    moved = Lake(tmp_path / "elsewhere")
    assert len(moved.read(ref)) == 150
    moved.close()


def test_a_lake_of_a_newer_schema_is_refused_in_one_sentence(lake: Lake) -> None:
    lake.commit(lambda cursor: cursor.execute("INSERT INTO migrations VALUES (99, now())"), "newer")
    with pytest.raises(LakeError, match="has schema 99.*update dapflow"):
        Lake(lake.root)


def test_a_catalogue_that_is_not_one_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "catalogue.sqlite").write_bytes(b"this is not a database, it is a text of some length " * 20)
    with pytest.raises(LakeError, match="damaged"):
        Lake(tmp_path / "lake")


def test_a_place_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a directory")
    with pytest.raises(LakeError, match="cannot be written.*--lake"):
        Lake(tmp_path / "file" / "lake")


def _write_versions(root: str, writer: int, count: int) -> None:
    lake = Lake(root)
    for number in range(count):
        complete(lake, f"w{writer}n{number}", chunks=1)


def test_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    Lake(tmp_path / "lake").close()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_versions, args=(str(tmp_path / "lake"), n, 5)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    lake = Lake(tmp_path / "lake")
    assert lake.rows("SELECT count(*) AS n FROM versions WHERE state = 'complete'") == [{"n": 15}]
    assert lake.rows("SELECT count(*) AS n, count(DISTINCT id) AS d FROM prompts") == [{"n": 45, "d": 45}]
    lake.close()


_WRITER = """
import sys
from storage import Lake, Ref
from storage.files import intact
from storage.versions import open_version
lake = Lake(sys.argv[1])
print("ready", flush=True)
with open_version(lake, kind="prompts", version="v1", step="load", code="c", parameters={}) as opened:
    if not isinstance(opened, Ref):
        for chunk in range(30):
            opened.write(chunk, [{"id": opened.row_id(chunk * 20 + n), "prompt": f"{chunk}.{n}", "parents": []} for n in range(20)])
        opened.complete({}, None, None)
"""


def test_kill_9_at_any_moment_leaves_whole_rows_and_the_rerun_ends_with_all_of_them(tmp_path: Path) -> None:
    root, kills = str(tmp_path / "lake"), 0
    for delay in (0.02, 0.1, 0.25, 0.4, 0.6):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, root], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."})
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
        lake = Lake(root)
        chunks = lake.rows("SELECT chunk, rows FROM chunks ORDER BY chunk")
        assert lake.rows("SELECT count(*) AS n, count(DISTINCT id) AS d FROM prompts") == [{"n": 20 * len(chunks), "d": 20 * len(chunks)}]
        lake.close()
    assert kills > 0
    subprocess.run([sys.executable, "-c", _WRITER, root], check=True, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.DEVNULL)
    lake = Lake(root)
    ref = lake.find("v1")
    assert ref is not None and ref.rows == 600
    assert [row["prompt"] for row in lake.read(ref)] == [f"{chunk}.{n}" for chunk in range(30) for n in range(20)]
    lake.close()

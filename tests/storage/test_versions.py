"""Versions: chunks exactly once, readable only when complete, never overwritten, made again when
their data is gone.
"""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dapflow.storage import DatasetRef, Lake, LakeError, OpenVersion, Ref, version_digest
from dapflow.storage.errors import RESERVE
from dapflow.storage.files import intact
from dapflow.storage.schema import MIGRATIONS
from dapflow.storage.versions import Opening, open_version

FACTS = {"kind": "prompts", "step": "load", "code": "c", "parameters": {"seed": 1}}


def prompt_rows(opened: OpenVersion, chunk: int, count: int = 3) -> list[dict[str, object]]:
    return [
        {"id": opened.row_id(chunk * count + n), "prompt": f"prompt {chunk}.{n}", "parents": []}
        for n in range(count)
    ]


def complete(lake: Lake, version: str, chunks: int = 2) -> Ref:
    with open_version(lake, Opening(version=version, **FACTS)) as opened:
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
    assert [row["prompt"] for row in lake.rows_of(ref)] == [
        "prompt 0.0",
        "prompt 0.1",
        "prompt 0.2",
        "prompt 1.0",
        "prompt 1.1",
        "prompt 1.2",
    ]
    assert [row["id"] for row in lake.rows_of(ref)] == [f"v1-{n:08d}" for n in range(6)]
    assert lake.rows("SELECT * FROM edges") == [{"child": "v1", "parent": "aaaa", "role": "source"}]
    [facts] = lake.rows(
        "SELECT step, state, parameters, code, rows, flow_run_id, task_run_id FROM versions"
    )
    assert facts | {"parameters": json.loads(facts["parameters"])} == {
        "step": "load", "state": "complete", "parameters": {"seed": 1}, "code": "c", "rows": 6, "flow_run_id": "flow", "task_run_id": "task",
    }  # fmt: skip


def test_an_open_version_does_not_exist_for_readers(lake: Lake) -> None:
    with open_version(lake, Opening(version="v1", **FACTS)) as opened:
        assert isinstance(opened, OpenVersion)
        opened.write(0, prompt_rows(opened, 0))
        assert lake.find("v1") is None
        assert lake.rows("SELECT * FROM prompts") == []  # not even for SQL
        with pytest.raises(LakeError, match="not a complete version"):
            lake.rows_of(DatasetRef("prompts", "v1", 3))


def test_a_step_that_died_does_only_what_is_missing(lake: Lake) -> None:
    with pytest.raises(RuntimeError), open_version(lake, Opening(version="v1", **FACTS)) as opened:
        assert isinstance(opened, OpenVersion)
        opened.write(0, prompt_rows(opened, 0))
        raise RuntimeError("died")
    with open_version(lake, Opening(version="v1", **FACTS)) as opened:
        assert isinstance(opened, OpenVersion)
        assert opened.done == {0}
        opened.write(0, prompt_rows(opened, 0))  # committed already: left as it is
        opened.write(1, prompt_rows(opened, 1))
        assert opened.complete({}, None, None).rows == 6
    assert len(lake.rows("SELECT * FROM prompts")) == 6


def test_a_complete_version_is_found_not_made_again(lake: Lake) -> None:
    complete(lake, "v1")
    with open_version(lake, Opening(version="v1", **FACTS)) as found:
        assert isinstance(found, Ref)
        assert found.rows == 6


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: os.truncate(file, 100)], ids=["gone", "truncated"]
)
def test_a_version_whose_files_are_damaged_is_made_again(
    lake: Lake, damage: Callable[[Path], None]
) -> None:
    def fill() -> Ref:
        with open_version(lake, Opening(version="v1", **FACTS)) as opened:
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
    assert len(lake.rows_of(ref)) == 2000


def test_a_lake_can_be_moved(lake: Lake, tmp_path: Path) -> None:
    ref = complete(lake, "v1", chunks=50)
    lake.close()
    shutil.move(lake.root, tmp_path / "elsewhere")
    moved = Lake(tmp_path / "elsewhere")
    assert len(moved.rows_of(ref)) == 150
    moved.close()


def test_a_lake_of_the_first_schema_is_brought_up_to_date_with_all_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("dapflow.storage.migrations.MIGRATIONS", MIGRATIONS[:1])
        with Lake(tmp_path / "lake") as old:
            for version, state in (("a", "complete"), ("b", "open")):
                facts = f"'{version}', 'prompts', 's', '{state}', '{{}}', 'c', 2, 1, NULL, NULL, now(), now()"
                rows = ", ".join(
                    f"('{version}', '{version}-{n}', 'd', 'p{n}', 'f', 'train', [])"
                    for n in range(2)
                )
                old.commit(
                    lambda cursor, facts=facts, rows=rows: [
                        cursor.execute(f"INSERT INTO versions VALUES ({facts})"),
                        cursor.execute(f"INSERT INTO prompts VALUES {rows}"),
                    ],
                    "as the first release wrote",
                )
    with pytest.raises(LakeError, match="older schema"):
        Lake(tmp_path / "lake", read_only=True)
    with Lake(tmp_path / "lake") as lake:
        assert lake.rows("SELECT number FROM migrations ORDER BY number") == [
            {"number": n + 1} for n in range(len(MIGRATIONS))
        ]
        assert lake.catalogue().versions["a"].activity is None  # nobody has said it
        ref = lake.find("a")
        assert ref is not None and [row["prompt"] for row in lake.rows_of(ref)] == ["p0", "p1"]
        assert lake.rows("SELECT version FROM versions") == [
            {"version": "a"}
        ]  # the open one is made again
        assert [file.version for file in lake.catalogue().files_of("prompts", "a")] == ["a"]


def test_rows_that_are_older_than_a_column_have_null_in_it(lake: Lake) -> None:
    ref = complete(lake, "v1")
    before = lake.read(ref)
    lake.commit(
        lambda cursor: cursor.execute("ALTER TABLE prompts ADD COLUMN flavour INTEGER"),
        "as a later migration does",
    )
    with Lake(lake.root) as later:
        assert later.read(ref).column_names == [*before.column_names, "flavour"]
        assert later.read(ref).drop("flavour") == before
        assert (
            later.pick(
                later.catalogue().files_of("prompts", "v1"),
                "flavour IS NULL AND id > 'v1-00000003'",
            )[0]["id"]
            == "v1-00000004"
        )


def test_a_full_disk_is_one_sentence_and_nothing_complete_is_harmed(tmp_path: Path) -> None:
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "full", tmp_path], check=False
        ).returncode
    ):
        pytest.skip("a small file system to fill cannot be mounted here")
    try:
        with Lake(tmp_path / "lake") as lake:
            ref = complete(lake, "v1")
            (tmp_path / "ballast").write_bytes(b"x" * (48 * 2**20 - RESERVE - 4 * 2**20))
            noise = [
                {"id": f"v2-{n:08d}", "prompt": random.Random(n).randbytes(40_000).hex()}
                for n in range(200)
            ]
            with (
                pytest.raises(LakeError, match="is full: free some space"),
                open_version(lake, Opening(version="v2", **FACTS)) as opened,
            ):
                assert isinstance(opened, OpenVersion)
                for chunk in range(10):
                    opened.write(chunk, noise)
            assert lake.find("v2") is None and len(lake.rows_of(ref)) == 6
            (tmp_path / "ballast").unlink()
            with open_version(lake, Opening(version="v2", **FACTS)) as opened:
                assert isinstance(opened, OpenVersion)
                assert opened.done
                assert opened.complete({}, None, None).rows == 200 * len(opened.done)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_lake_of_a_newer_schema_is_refused_in_one_sentence(lake: Lake) -> None:
    lake.commit(lambda cursor: cursor.execute("INSERT INTO migrations VALUES (99, now())"), "newer")
    with pytest.raises(LakeError, match="has schema 99.*update dapflow"):
        Lake(lake.root)


def test_a_catalogue_that_is_not_one_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "catalogue.sqlite").write_bytes(
        b"this is not a database, it is a text of some length " * 20
    )
    with pytest.raises(LakeError, match="damaged"):
        Lake(tmp_path / "lake")


def test_a_place_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a directory")
    with pytest.raises(LakeError, match="cannot be written.*choose another lake"):
        Lake(tmp_path / "file" / "lake")

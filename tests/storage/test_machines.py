"""A lake for several machines: its catalogue in PostgreSQL, its data in a shared directory or in
S3; the same code.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapflow.storage import Lake, LakeError
from dapflow.storage.export import export
from dapflow.storage.files import verify
from dapflow.storage.garbage import collect, find_garbage
from dapflow.storage.lineage import trace
from dapflow.tasks.prompts.preferences import IMPORTED
from tests.helpers.lakes import initial_policy, iteration, numbered
from tests.helpers.processes import database, free_port, postgres, s3
from tests.helpers.writers import check_writers


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder)) as found:
        yield found


def test_processes_that_write_at_once_to_postgresql_lose_nothing(
    server: str, tmp_path: Path
) -> None:
    check_writers(f"postgres://{database(server, 'many')}?root={tmp_path}", processes=3, versions=4)


def test_a_lake_in_postgresql_does_what_one_in_a_directory_does(
    server: str, tmp_path: Path
) -> None:
    address = f"postgres://{database(server, 'whole')}?root={tmp_path / 'lake'}"
    with Lake(address) as lake:
        made = iteration(lake, 1, initial_policy(lake))
        assert [one.kind for one in trace(lake, f"{made['pairs'].version}-2").down] == ["models"]
        next((lake.root / "data").rglob("*.parquet")).unlink()
        assert len([ref for ref, damages in verify(lake) if damages]) == 1
    with Lake(address, read_only=True) as lake:
        assert len(lake.catalogue().versions) == 8
        with pytest.raises(LakeError, match="for reading only"):
            lake.sql("DELETE FROM prompts")


def test_a_server_that_does_not_answer_is_named_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="cannot be reached.*is the server running"):
        Lake(f"postgres://nobody@127.0.0.1:{free_port()}/lake?root={tmp_path}")


def test_data_in_s3(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-of-s3")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with s3() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        address = f"postgres://{database(server, 'remote')}?root={tmp_path}&data=s3://bucket/lake"
        with Lake(address) as lake:
            made = iteration(lake, 1, initial_policy(lake), chunks=2)
            assert len(lake.rows_of(made["completions"])) == 16
            assert [ref for ref, damages in verify(lake) if damages] == []
            assert trace(lake, f"{made['pairs'].version}-2").down
            assert export(lake, made["pairs"], tmp_path / "pairs.jsonl") == 4
            numbered(lake, 7)
            collect(lake, find_garbage(lake, imports=[IMPORTED]))
            objects = boto3.client("s3").list_objects_v2(Bucket="bucket")["Contents"]
            boto3.client("s3").delete_object(Bucket="bucket", Key=objects[0]["Key"])
            assert len([ref for ref, damages in verify(lake) if damages]) == 1
    with Lake(address) as lake, pytest.raises(LakeError, match="cannot be reached"):
        list(verify(lake))
    assert not list(tmp_path.rglob("*.parquet"))
    assert not [
        file
        for file in tmp_path.rglob("*")
        if file.is_file() and b"planted-secret" in file.read_bytes()
    ]

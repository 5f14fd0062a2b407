"""The Parquet files of complete versions: written down with a checksum, checked, and taken out when
damaged.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from dapflow.storage.catalogue import DataFile
from dapflow.storage.database import attach_catalogue, quoted
from dapflow.storage.errors import LakeError, lake_errors
from dapflow.storage.lake import Lake
from dapflow.storage.refs import ModelRef, Ref


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what was written."""

    path: str
    what: str  # 'missing', 'truncated' or 'changed'


def model_files(lake: Lake, version: str) -> list[str]:
    """The files of a model's weights, configuration and tokenizer."""
    return sorted(
        str(path) for path in (lake.root / "models" / version).rglob("*") if path.is_file()
    )


def checksum(lake: Lake, path: str) -> tuple[str, int, str]:
    """What is written down about a file: its path relative to the data, bytes, sha256."""
    return _relative(lake, path), _size(lake, path) or 0, _sha256(lake, path)


def intact(lake: Lake, ref: Ref) -> bool:
    """Whether the data of a complete version is still there: its files with their sizes, and a
    model's weights.
    """
    return not _damages(lake, ref, {})


def verify(lake: Lake) -> Iterator[tuple[Ref, list[Damage]]]:
    """Check every file of every complete version against the catalogue and its checksum; oldest
    version first.
    """
    digests = {row["path"]: row["sha256"] for row in lake.rows("SELECT path, sha256 FROM files")}
    for info in sorted(lake.catalogue().versions.values(), key=lambda one: one.opened_at):
        if ref := lake.find(info.version):
            yield ref, _damages(lake, ref, digests)


def retire(lake: Lake, versions: Iterable[str], *, whole: bool = False) -> None:
    """Take files that are missing or damaged, or all of them, out of the catalogue, so that what
    they held can be made again.
    """
    damaged = [
        file.path
        for version in versions
        for file in lake.files_of(version)
        if whole or _damage(lake, file, None)
    ]
    if damaged:
        names = ", ".join(f"'{quoted(path.rsplit('/', 1)[-1])}'" for path in damaged)
        with (
            lake_errors(lake.location.address),
            closing(attach_catalogue(lake.location)) as connection,
        ):
            connection.execute(
                "UPDATE catalogue.ducklake_data_file SET end_snapshot = (SELECT max(snapshot_id) "
                "FROM catalogue.ducklake_snapshot)"
                f" WHERE end_snapshot IS NULL AND parse_filename(path) IN ({names})"
            )
        lake.refresh()


def _damages(lake: Lake, ref: Ref, digests: dict[str, str]) -> list[Damage]:
    files = lake.files_of(ref.version)
    found = [
        damage
        for file in files
        if (damage := _damage(lake, file, digests.get(_relative(lake, file.path))))
    ]
    if not found and sum(file.rows for file in files if file.table == ref.kind) != ref.rows:
        found = [Damage(f"data/main/{ref.kind}/version={ref.version}", "missing")]
    return found or (_damaged_model(lake, ref, digests) if isinstance(ref, ModelRef) else [])


def _damage(lake: Lake, file: DataFile, sha256: str | None) -> Damage | None:
    size = _size(lake, file.path)
    if size is None:
        return Damage(file.path, "missing")
    if size != file.bytes:
        return Damage(file.path, "truncated" if size < file.bytes else "changed")
    return Damage(file.path, "changed") if sha256 and _sha256(lake, file.path) != sha256 else None


def _damaged_model(lake: Lake, ref: ModelRef, digests: dict[str, str]) -> list[Damage]:
    path = lake.model(ref)["path"]
    if path is None:
        return []
    written = lake.rows(
        "SELECT path, bytes FROM files WHERE version = ? AND path LIKE 'models/%'", [ref.version]
    )
    files = [
        DataFile("models", ref.version, str(lake.root / row["path"]), row["bytes"], 0)
        for row in written
    ]
    found = [
        damage
        for file in files
        if (damage := _damage(lake, file, digests.get(_relative(lake, file.path))))
    ]
    return found or ([] if any(path.glob("*.safetensors")) else [Damage(str(path), "missing")])


def _size(lake: Lake, path: str) -> int | None:
    if not path.startswith("s3://"):
        return Path(path).stat().st_size if Path(path).is_file() else None
    try:
        with lake_errors(lake.location.address), lake.cursor() as cursor:
            found = cursor.execute("SELECT size FROM read_blob(?)", [path]).fetchone()
    except LakeError as error:
        if isinstance(error.__cause__, duckdb.HTTPException) and error.__cause__.status_code == 404:
            return None
        raise
    return None if found is None else int(found[0])


def _sha256(lake: Lake, path: str) -> str:
    if path.startswith("s3://"):
        return str(
            lake.rows("SELECT sha256(content) AS digest FROM read_blob(?)", [path])[0]["digest"]
        )
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _relative(lake: Lake, path: str) -> str:
    return path.removeprefix(lake.location.data.rstrip("/") + "/").removeprefix(f"{lake.root}/")

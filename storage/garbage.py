"""What the lake no longer needs: found first, removed when asked.

Kept are the policies of the newest runs of each recipe, the promoted ones, what was named, what was
made since the newest finished run began, and imported data; all with whatever they were made from
and measured by. Figures that compare one of these with a model that is not kept go with that model,
and so does its report. Nothing is removed while a run is going on. The record of a removed version,
its parameters and its edges stay.
"""

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from dapflow.storage import files
from dapflow.storage.catalogue import Catalogue, VersionInfo
from dapflow.storage.database import Connection
from dapflow.storage.errors import LakeError, Remedy, lake_errors
from dapflow.storage.lake import Lake
from dapflow.storage.runs import running
from dapflow.storage.versions import drop_rows

_PLACES = ("models", "checkpoints", "reports")  # folders of the lake that have one for each version


@dataclass(frozen=True, slots=True)
class Garbage:
    """A version that can go, how much that frees, and why."""

    info: VersionInfo
    bytes: int
    why: str  # 'left open by a dead run' or 'no kept model needs it'


def find_garbage(
    lake: Lake, *, imports: Collection[str], runs: int = 5, keep: Iterable[str] = ()
) -> list[Garbage]:
    """What can go; changes nothing.

    imports: steps that brought a user's data into the lake, whose versions are kept
    runs: the policies of so many of the newest finished runs of each recipe are kept
    keep: versions that are kept too
    """
    catalogue = lake.catalogue()
    newest = lake.rows("SELECT max(started_at) AS at FROM runs WHERE state = 'done'")[0]["at"]
    roots = set(keep) | {
        info.version for info in catalogue.versions.values() if info.step in imports
    }
    kept = _kept(lake, runs, roots, newest)
    unneeded = [
        Garbage(info, _bytes(lake, info), "no kept model needs it")
        for info in catalogue.versions.values()
        if info.state == "complete" and newest is not None and info.version not in kept
    ]
    return sorted([*left_open(lake), *unneeded], key=lambda garbage: garbage.info.opened_at)


def left_open(lake: Lake) -> list[Garbage]:
    """What dead runs have begun and nobody is at."""
    return [
        Garbage(info, _bytes(lake, info), "left open by a dead run")
        for info in lake.catalogue().versions.values()
        if info.state == "open" and _is_free(lake, info.version)
    ]


def collect(lake: Lake, garbage: list[Garbage]) -> None:
    """Remove it: first from the catalogue, in one transaction, then the files. Killed in between,
    the next call removes the rest.

    Raises LakeError while a run is going on: it may be about to read what nothing else needs.
    """
    if alive := running(lake):
        raise LakeError(
            f"A run is going on ({', '.join(alive)}): wait until it has ended, or end it, "
            "before removing anything; if its machine is gone, have it written off.",
            Remedy.WRITE_OFF_RUN,
        )
    versions = [one.info.version for one in garbage]
    if versions:
        files.retire(lake, versions)
        lake.commit(lambda cursor: _drop(cursor, garbage), f"drop {len(versions)} versions")
    for version in versions:
        for place in _PLACES:
            shutil.rmtree(lake.root / place / version, ignore_errors=True)
        (lake.root / "locks" / f"{version}.lock").unlink(missing_ok=True)
    for scratch in (
        lake.root / "checkpoints"
    ).iterdir():  # of writers that were killed right after they had completed a version
        if lake.find(scratch.name):
            shutil.rmtree(scratch, ignore_errors=True)
    with lake_errors(lake.location.address), lake.cursor() as cursor:
        cursor.execute(
            f"CALL ducklake_expire_snapshots('{lake.name}', older_than => now())"
        ).fetchall()
        cursor.execute(
            f"CALL ducklake_cleanup_old_files('{lake.name}', cleanup_all => true)"
        ).fetchall()
        cursor.execute(
            f"CALL ducklake_delete_orphaned_files('{lake.name}', older_than => now() - INTERVAL 1 "
            "DAY)"
        ).fetchall()
    lake.refresh()


def _drop(cursor: Connection, garbage: list[Garbage]) -> None:
    drop_rows(cursor, [one.info.version for one in garbage])
    for one in garbage:
        if one.info.state == "open":
            cursor.execute("DELETE FROM versions WHERE version = ?", [one.info.version])
        else:
            cursor.execute(
                "UPDATE versions SET state = 'dropped' WHERE version = ?", [one.info.version]
            )


def _kept(lake: Lake, runs: int, roots: set[str], since: datetime | None) -> set[str]:
    catalogue = lake.catalogue()
    policies = lake.rows(
        "SELECT policy, metrics FROM iterations JOIN (SELECT run, row_number() OVER (PARTITION BY "
        "recipe ORDER BY started_at DESC) AS place"
        " FROM runs WHERE state = 'done') USING (run) WHERE place <= ?",
        [runs],
    )
    policies += lake.rows("SELECT policy, metrics FROM promotions WHERE action <> 'keep'")
    front, kept = {one for row in policies for one in row.values() if one} | roots, set[str]()
    front |= {
        one.version
        for one in catalogue.versions.values()
        if one.state == "open" or (since and one.completed_at and one.completed_at >= since)
    }
    needed = front | {one for root in front for one in catalogue.ancestors(root)}
    dropped = {one.version for one in catalogue.versions.values() if one.kind == "models"} - needed
    while front:
        above = front | {one for root in front for one in catalogue.ancestors(root)}
        kept |= above
        measured = {
            child
            for one in above
            for child in catalogue.children.get(one, ())
            if _kind(catalogue, child) == "metrics"
        } - kept
        front = {one for one in measured if dropped.isdisjoint(catalogue.ancestors(one))}
    return kept


def _kind(catalogue: Catalogue, version: str) -> str | None:
    return catalogue.versions[version].kind if version in catalogue.versions else None


def _is_free(lake: Lake, version: str) -> bool:
    try:
        with FileLock(lake.root / "locks" / f"{version}.lock", timeout=0):
            return True
    except Timeout:
        return False


def _bytes(lake: Lake, info: VersionInfo) -> int:
    places = (lake.root / name / info.version for name in _PLACES)
    return lake.catalogue().bytes_of(info.version) + sum(
        path.stat().st_size for place in places for path in _files(place)
    )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())

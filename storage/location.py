"""Where a lake is: its catalogue, its data files, and the directory of its models and locks.

    ./lake                                                     SQLite catalogue, everything in one directory
    postgres://me@db.example:5432/lake?root=/shared/lake       PostgreSQL catalogue, data and models in a directory all machines share
    postgres://me@db.example/lake?root=/shared/lake&data=s3://bucket/lake
Passwords come from PGPASSWORD or ~/.pgpass, and keys of S3 from AWS_ACCESS_KEY_ID and its kin:
never from the address, which is logged.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, unquote, urlsplit

from dapflow.storage.errors import LakeError

_SCHEMES = ("postgres:", "postgresql:")


@dataclass(frozen=True)
class Location:
    """A lake's address, taken apart."""

    catalogue: str  # what DuckLake attaches: sqlite:FILE or postgres:DSN
    root: Path  # models, checkpoints, locks; absolute
    data: str  # a directory, absolute, or s3://...
    address: str  # how messages name it

    @property
    def extensions(self) -> tuple[str, ...]:
        """The DuckDB extensions it needs."""
        catalogue = (
            "postgres_scanner" if self.catalogue.startswith("postgres:") else "sqlite_scanner"
        )
        return ("ducklake", catalogue, *(["httpfs"] if self.data.startswith("s3://") else []))

    @property
    def exists(self) -> bool:
        """Whether there is a lake already; a server's is taken to be there."""
        return self.sqlite_file is None or self.sqlite_file.is_file()

    @property
    def sqlite_file(self) -> Path | None:
        """The catalogue's file, or None when it is a server."""
        return (
            Path(self.catalogue.removeprefix("sqlite:"))
            if self.catalogue.startswith("sqlite:")
            else None
        )


def locate(address: str | os.PathLike[str]) -> Location:
    """The location behind a directory or a postgres:// address. Raises LakeError that says how to
    write it.
    """
    text = os.fspath(address)
    if not text.startswith(_SCHEMES):
        root = Path(text).expanduser().absolute()
        return Location(f"sqlite:{root / 'catalogue.sqlite'}", root, str(root / "data"), str(root))
    parts = urlsplit(text)
    if parts.password:
        raise LakeError(
            "A lake's address is logged, so it must hold no password: put it into PGPASSWORD or "
            "~/.pgpass."
        )
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = set(options) - {"root", "data"}
    name = parts.path.strip("/")
    try:
        port = parts.port
    except ValueError:
        port, name = None, ""
    if unknown or not name or "root" not in options:
        raise LakeError(
            f"{text} is not the address of a lake: write "
            "postgres://user@host:port/database?root=/directory[&data=s3://bucket]."
        )
    root = Path(options["root"]).expanduser().absolute()
    fields = {
        "dbname": unquote(name),
        "host": parts.hostname,
        "port": port,
        "user": parts.username and unquote(parts.username),
    }
    dsn = " ".join(f"{key}={value}" for key, value in fields.items() if value)
    return Location(f"postgres:{dsn}", root, options.get("data", str(root / "data")), text)


@contextmanager
def copied(location: Location) -> Iterator[Location]:
    """The lake with a copy of its SQLite catalogue, as it is now, in a temporary directory; its
    data stay where they are.
    """
    if location.sqlite_file is None:
        yield location
        return
    with TemporaryDirectory(prefix="dapflow-catalogue-") as folder:
        for suffix in (
            "",
            "-wal",
        ):  # what was committed last may still stand in the write-ahead log
            file = location.sqlite_file.with_name(location.sqlite_file.name + suffix)
            if file.exists():
                shutil.copy(file, folder)
        yield replace(location, catalogue=f"sqlite:{Path(folder) / location.sqlite_file.name}")

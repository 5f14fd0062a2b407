"""DuckDB itself: one instance a process, with the extensions from the installed packages, nothing
downloaded, nothing left in the user's home.
"""

import itertools
import os
import tempfile
import threading
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import duckdb

from dapflow.storage.errors import LakeError
from dapflow.storage.location import Location
from dapflow.storage.processors import processors

Connection = duckdb.DuckDBPyConnection
MEMORY_LIMIT = "1GB"  # of DuckDB; what does not fit spills to the temporary directory
_SPILL_LIMIT = "8GB"  # of what a user's own SQL spills
_BUSY_MILLISECONDS = 30_000
_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # a table's name is never a Python variable's, and a Ctrl-C is not lost in the look-up
    "python_enable_replacements": "false",
    "memory_limit": MEMORY_LIMIT,
    "threads": str(processors()),
}
_numbers = itertools.count()
_lock = threading.Lock()


@cache
def _instance(process: int) -> Connection:
    del process  # a child process gets an instance of its own
    return new_instance()


def new_instance() -> Connection:
    """A DuckDB instance of its own. Opening one and loading the extensions takes 0.2 s, most of it
    checking their signatures.
    """
    return duckdb.connect(
        config={
            **_CONFIG,
            "temp_directory": str(Path(tempfile.gettempdir()) / f"dapflow-duckdb-{os.getpid()}"),
        }
    )


def attach(location: Location, read_only: bool = False) -> tuple[Connection, str]:
    """A connection to the lake, and the name it is attached under. A read-only one is an instance
    of its own.
    """
    with _lock:
        instance = new_instance() if read_only else _instance(os.getpid())
        for extension in location.extensions:
            instance.execute(f"LOAD '{quoted(_extension_file(extension))}'")
        if location.data.startswith("s3://"):
            _s3_secret(instance)
        name = f"lake_{next(_numbers)}"
    options = [
        f"DATA_PATH '{quoted(location.data)}'",
        "OVERRIDE_DATA_PATH true",
    ]  # a lake that was moved has its data elsewhere
    if location.sqlite_file:
        options += [f"BUSY_TIMEOUT {_BUSY_MILLISECONDS}", "META_JOURNAL_MODE 'WAL'"]
    if read_only:
        options.append("READ_ONLY")
    connection = instance.cursor()
    connection.execute(
        f"ATTACH 'ducklake:{quoted(location.catalogue)}' AS {name} ({', '.join(options)})"
    )
    return connection, name


def confine(connection: Connection, location: Location) -> None:
    """Shut an instance in for SQL that a user wrote: it opens no file but the lake's data, and no
    setting of it can be changed again.
    """
    if connection.execute("SELECT current_setting('lock_configuration')").fetchone() == (True,):
        return  # by a question before
    data = quoted(location.data.rstrip("/") + "/")
    connection.execute(f"SET allowed_directories = ['{data}']")
    connection.execute(f"SET max_temp_directory_size = '{_SPILL_LIMIT}'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def attach_catalogue(location: Location) -> Connection:
    """A connection to the catalogue's own tables, attached as `catalogue`: for what DuckLake has no
    call for.
    """
    connection = new_instance()
    for extension in location.extensions:
        connection.execute(f"LOAD '{quoted(_extension_file(extension))}'")
    scheme, _, source = location.catalogue.partition(":")
    connection.execute(f"ATTACH '{quoted(source)}' AS catalogue (TYPE {scheme})")
    return connection


def quoted(text: str | Path) -> str:
    """`text` inside a SQL string literal."""
    return str(text).replace("'", "''")


@cache
def _extension_file(name: str) -> Path:
    try:
        root = cast("Path", resources.files(f"duckdb_extension_{name}"))
    except ModuleNotFoundError as error:
        raise LakeError(
            f"This lake needs DuckDB's extension {name}: pip install 'dapflow[machines]'."
        ) from error
    return root / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"


def _s3_secret(instance: Connection) -> None:
    given = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID"),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN"),
        "REGION": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        given |= {
            "ENDPOINT": host.rstrip("/"),
            "URL_STYLE": "path",
            "USE_SSL": "true" if scheme == "https" else "false",
        }
    values = ", ".join(f"{key} '{quoted(value)}'" for key, value in given.items() if value)
    instance.execute(
        f"CREATE OR REPLACE SECRET dapflow_s3 (TYPE s3{', ' if values else ''}{values})"
    )

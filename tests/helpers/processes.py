"""A PostgreSQL server and an S3 server on loopback, started for the tests and ended by them."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """`user@host:port` of a new server with its data in `folder`. Skips the test where PostgreSQL
    is not installed.
    """
    path = os.pathsep.join([*map(str, reversed(_DEBIAN)), os.environ.get("PATH", "")])
    initdb, server, createdb = (
        shutil.which(name, path=path) for name in ("initdb", "postgres", "createdb")
    )
    if not (initdb and server and createdb):
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    as_user, user = _unprivileged(folder)
    port, log = free_port(), (folder / "server.log").open("wb")
    subprocess.run(
        [*as_user, initdb, "-D", folder / "pg", "-A", "trust", "-U", user, "--no-sync"],
        check=True,
        stdout=log,
        cwd="/",
    )
    options = [
        "-D",
        folder / "pg",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
    ]
    process = subprocess.Popen([*as_user, server, *options], stdout=log, stderr=log, cwd="/")
    try:
        _wait(process, lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close())
        yield f"{user}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@contextmanager
def s3() -> Iterator[str]:
    """Endpoint of a new S3 server that keeps everything in memory."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait(process, lambda: urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1).close())
        yield endpoint
    finally:
        process.terminate()
        process.wait(30)


def database(server: str, name: str) -> str:
    """A new database on a server of `postgres`; returns its address without scheme."""
    user, _, place = server.partition("@")
    host, _, port = place.partition(":")
    path = os.pathsep.join([*map(str, reversed(_DEBIAN)), os.environ.get("PATH", "")])
    createdb = shutil.which("createdb", path=path)
    assert createdb is not None
    subprocess.run([createdb, "-h", host, "-p", port, "-U", user, name], check=True)
    return f"{server}/{name}"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged(folder: Path) -> tuple[list[str], str]:
    """How to run a command as somebody else than root, which PostgreSQL refuses; and who that is."""
    if os.geteuid() != 0:
        return [], getpass.getuser()
    for one in (folder, *folder.parents):
        if one.stat().st_uid == 0 and one != one.parent:
            one.chmod(one.stat().st_mode | 0o111)
    shutil.chown(folder, "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"], "postgres"


def _wait(process: "subprocess.Popen[bytes]", attempt: object) -> None:
    assert callable(attempt)
    for _ in range(300):
        assert process.poll() is None, "the server ended"
        try:
            attempt()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise TimeoutError("the server did not answer within 30 seconds")

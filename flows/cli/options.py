"""What the commands have in common: their options, opening a lake, ports, JSON."""

import json
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import duckdb
from cyclopts import Parameter, validators

from dapflow.flows.server.environment import ALLOW
from dapflow.storage.errors import UserError, one_line
from dapflow.storage.lake import Lake as OpenLake
from dapflow.tasks.servers.door import HOSTS

Lake = Annotated[
    str,
    Parameter(
        name="--lake", env_var="DAPFLOW_LAKE", help="Directory of the lake, or postgres:// address."
    ),
]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Change the recipe: key=value, repeatable.", negative=()),
]
Iterations = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Toy = Annotated[
    bool, Parameter(name="--toy", negative=(), help="On a toy model made on the spot: seconds.")
]
JsonLast = Annotated[
    bool, Parameter(name="--json", negative=(), help="Print one JSON object as the last line.")
]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Port = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))]
PortOrAny = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]
AllowHost = Annotated[
    tuple[str, ...],
    Parameter(
        name="--allow-host",
        env_var=HOSTS,
        negative=(),
        help="A name that it answers to beside its own address, repeatable.",
    ),
]
AllowCommands = Annotated[
    bool,
    Parameter(
        name="--allow-commands",
        env_var=ALLOW,
        negative=(),
        help="Runs may execute whatever their parameters on the server name: commands, functions.",
    ),
]
Timeout = Annotated[
    float,
    Parameter(
        help="How many seconds an answer may take.", validator=validators.Number(gt=0, lte=86400)
    ),
]
Limit = Annotated[int, Parameter(help="How many rows at most.", validator=validators.Number(gte=0))]


def existing(address: str) -> OpenLake:
    """A lake to write to, which must be there."""
    OpenLake(address, read_only=True).close()
    return OpenLake(address)


def allow(commands: bool) -> None:
    """What AllowCommands says, for this process and those that it starts."""
    os.environ[ALLOW] = "1" if commands else "0"


def name_hosts(names: tuple[str, ...]) -> None:
    """Have the servers of this process, and of those that it starts, answer to these names. Raises
    UserError for what is no name.
    """
    hosts = " ".join(names).replace(",", " ").split()
    if wrong := [
        host for host in hosts if not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", host)
    ]:
        raise UserError(
            f"--allow-host {wrong[0]}: name a host alone, for example --allow-host gpu.example, "
            "without http:// and port."
        )
    os.environ[HOSTS] = " ".join(hosts)


@contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Raises UserError where what is inside cannot listen there."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        why = (
            os.strerror(code) if code > 0 else error.strerror
        )  # the system's words alone; of a host's name it has none
        raise UserError(
            f"Nothing can listen on {host}:{port} ({why}): choose another --port."
        ) from error


def check_free(host: str, port: int) -> None:
    """Raises UserError where a server of another process, which would end without a word of ours,
    could not listen.
    """
    with listening(host, port):
        socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ).close()


@contextmanager
def reading(address: str) -> Iterator[OpenLake]:
    """A lake to read from; what is wrong with a query becomes a sentence."""
    with OpenLake(address, read_only=True) as opened:
        try:
            yield opened
        except duckdb.Error as error:
            raise UserError(f"The database says: {one_line(str(error))}") from error


def print_json(value: Any) -> None:
    """One value, on standard output; what JSON has no number for (NaN, infinity) is null."""
    print(json.dumps(_finite(value), default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

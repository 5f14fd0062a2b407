"""What the lake's commands have in common: their options, opening a lake, JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import duckdb
from cyclopts import Parameter, validators

from storage.errors import UserError
from storage.lake import Lake as OpenLake

Lake = Annotated[str, Parameter(name="--lake", env_var="DAPFLOW_LAKE", help="Directory of the lake, or postgres:// address.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Port = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))]
PortOrAny = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]
Limit = Annotated[int, Parameter(help="How many rows at most.", validator=validators.Number(gte=0))]


def existing(address: str) -> OpenLake:
    """A lake to write to, which must be there."""
    OpenLake(address, read_only=True).close()
    return OpenLake(address)


@contextmanager
def reading(address: str) -> Iterator[OpenLake]:
    """A lake to read from; what is wrong with a query becomes a sentence."""
    with OpenLake(address, read_only=True) as opened:
        try:
            yield opened
        except duckdb.Error as error:
            raise UserError(f"The database says: {str(error).splitlines()[0]}") from error


def print_json(value: Any) -> None:
    """One value, on standard output."""
    print(json.dumps(value, default=str))

"""The lake of the run that is going on, and the calls of a run that is only planned."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from dapflow.storage import DatasetRef, Lake, UserError
from dapflow.tasks.step.work import Contents

if TYPE_CHECKING:
    from dapflow.tasks.step.call import Call

_lake: ContextVar[Lake] = ContextVar("lake")
_plan: ContextVar["list[Call] | None"] = ContextVar("plan", default=None)


@contextmanager
def use_lake(lake: Lake) -> Iterator[Lake]:
    """Steps called inside the block read and write this lake."""
    token = _lake.set(lake)
    try:
        yield lake
    finally:
        _lake.reset(token)


def current_lake() -> Lake:
    """The lake of the run that is going on. Raises UserError when there is none."""
    if (lake := _lake.get(None)) is None:
        raise UserError(
            "There is no lake yet: make one with `dapflow run` or `dapflow import`, or name one "
            "with --lake."
        )
    return lake


def rows_if_made(ref: DatasetRef) -> list[dict[str, Any]] | None:
    """The rows of a dataset; None while a run is only planned and its lake does not hold them."""
    if _plan.get() is not None and (
        (lake := _lake.get(None)) is None or lake.find(ref.version) is None
    ):
        return None
    return current_lake().rows_of(ref)


@contextmanager
def planning() -> "Iterator[list[Call]]":
    """Steps called inside the block are not run: they are written down, and return the references
    they would return.
    """
    calls: list[Call] = []
    token = _plan.set(calls)
    try:
        yield calls
    finally:
        _plan.reset(token)


def planned() -> "list[Call] | None":
    """The calls of the plan that is being made, to be added to; None in a run."""
    return _plan.get()


def contents_of(ref: DatasetRef) -> Contents:
    """What a dataset's rows are, at most, as the plan that is being made has it; of one that is
    none of the plan's only their number is known.
    """
    for call in planned() or ():
        if call.version == ref.version:
            return call.contents
    return Contents(rows=ref.rows, prompts=ref.rows)

"""Waiting for other writers of the same lake."""

from collections.abc import Callable
from typing import TypeVar

import duckdb
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

T = TypeVar("T")
_BUSY = (
    "database is locked",
    "conflict",
    "unable to open database file: locked",
    "could not serialize access",
    "deadlock detected",
)


def patiently(attempt: Callable[[], T]) -> T:
    """The result of `attempt`, made again for up to two minutes as long as another writer is in the
    way.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random_exponential(multiplier=0.05, max=2.0),
        stop=stop_after_delay(120),
        reraise=True,
    )
    return retrying(attempt)


def _is_busy(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, duckdb.Error) and any(word in text for word in _BUSY)

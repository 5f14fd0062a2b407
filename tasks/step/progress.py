"""Where a running step tells how far it is. The command line shows it as bars; without a reporter
nothing is shown.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

Say = Callable[[str], None]
"""Takes a sentence for whoever watches the run."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What became of one step of a run: the line of the summary."""

    name: str
    version: str
    kind: str
    state: Literal["run", "cached"]
    rows: int
    seconds: float  # wall time of this run, not of the run that made a cached version


class Reporter(Protocol):
    """Told about every step as it starts, advances and ends."""

    def started(self, name: str) -> None: ...
    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None: ...
    def finished(self, record: StepRecord) -> None: ...
    def said(self, sentence: str) -> None: ...


class Silent:
    """The reporter of tests and of deployments, where Prefect's own page shows the progress."""

    def started(self, name: str) -> None: ...
    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None: ...
    def finished(self, record: StepRecord) -> None: ...
    def said(self, sentence: str) -> None: ...


_SILENT = Silent()
_reporter: ContextVar[Reporter] = ContextVar("reporter", default=_SILENT)


def reporter() -> Reporter:
    """The reporter of the run that is going on."""
    return _reporter.get()


@contextmanager
def report_to(chosen: Reporter) -> Iterator[None]:
    """Report all steps run inside the block to `chosen`."""
    token = _reporter.set(chosen)
    try:
        yield
    finally:
        _reporter.reset(token)

"""What moves while a command works, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dapflow.flows.display.screen import Screen


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner and the seconds, on standard error."""
    with _bar() as bar:
        bar.add_task(what, counted="")
        yield


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """The same with a count that the block reports."""
    with _bar() as bar:
        task = bar.add_task(what, counted="")
        yield lambda done: bar.update(task, counted=f"{done:,}")


def _bar() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[counted]}"),
        TimeElapsedColumn(),
    )
    console = Screen(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

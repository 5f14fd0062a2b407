"""Stretches of the main thread in which no signal raises: it is heard at their end.

KeyboardInterrupt that goes through DuckDB can leave a cursor that never closes: a run that was
stopped then hangs for good. Whoever handles signals asks `held()` first, and raises only where that
is false. Test: pytest tests/storage/test_shield.py
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_inside = list[Callable[[], None]]()
_asked = False


@contextmanager
def shielded(hurry: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A signal that comes within the block raises KeyboardInterrupt at its end, also in place of
    what the block itself raises. In other threads than the main one nothing: no signal comes there.

    hurry: called when a signal comes, so that the block ends soon.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _inside.append(hurry)
    try:
        yield
    finally:
        _inside.pop()
        if _asked and not _inside:
            _asked = False
            raise KeyboardInterrupt


def held() -> bool:
    """Whether the main thread is in such a stretch; then it will be told at the end."""
    global _asked
    if not _inside:
        return False
    _asked = True
    for hurry in _inside:
        hurry()
    return True

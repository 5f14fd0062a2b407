"""A Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback of a library that swallows exceptions it would be
gone, so it is also remembered, and raised again at the next sign of life of a step.
"""

import signal
from typing import NoReturn

_asked = False


def listen() -> None:
    """From now on, SIGINT and SIGTERM stop the run."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _stop)


def check() -> None:
    """Raise KeyboardInterrupt when somebody has asked the run to stop."""
    if _asked:
        raise KeyboardInterrupt


def _stop(*_: object) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt

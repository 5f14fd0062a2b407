"""A Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback whose
exceptions nobody sees (of a weak reference, of a library) it would be gone, so it is also
remembered, and raised again at the next sign of life of a step.
"""

import signal
import threading
from typing import NoReturn

_asked = False


def listen() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP, a terminal that is closed, stop the run; under nohup
    the last one does not.

    Prefect's flows take SIGTERM for themselves and remember nothing: inside one, listen again.
    """
    if threading.current_thread() is threading.main_thread():  # no other can
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, _stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, _stop)


def check() -> None:
    """Raise KeyboardInterrupt when somebody has asked the run to stop."""
    if _asked:
        raise KeyboardInterrupt


def _stop(*_: object) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt

"""A Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback whose
exceptions nobody sees (of a weak reference, of a library) it would be gone, so it is also
remembered, and raised again at the next sign of life of a step. In a question to the lake it waits
for the end (storage/shield.py).
"""

import signal
import threading

from dapflow.storage.shield import held

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


def _stop(*_: object) -> None:
    global _asked
    _asked = True
    if not held():
        raise KeyboardInterrupt

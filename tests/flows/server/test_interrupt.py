"""Which signals stop a run."""

import signal
import subprocess
import sys

import pytest

_WAITS = """
import signal, sys, time
ignored = sys.argv[2] == "nohup"  # whatever the tests themselves run under
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
from dapflow.flows.server import interrupt
interrupt.listen()
try:
    signal.raise_signal(int(sys.argv[1]))
    print("goes on")
except KeyboardInterrupt:
    print("stopped")
try:
    interrupt.check()
    print("forgotten")
except KeyboardInterrupt:
    print("remembered")
"""


def after(number: signal.Signals, how: str = "as usual") -> list[str]:
    """What becomes of a process that listens and is sent a signal."""
    done = subprocess.run(
        [sys.executable, "-c", _WAITS, str(int(number)), how],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")[:2]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_it_stops_the_run_and_is_remembered(number: signal.Signals) -> None:
    assert after(number) == ["stopped", "remembered"]


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    assert after(signal.SIGHUP, "nohup") == ["goes on", "forgotten"]

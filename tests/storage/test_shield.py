"""A signal while the lake is asked: heard, and nothing hangs or is half done."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from dapflow.flows.server import interrupt
from dapflow.storage import Lake
from dapflow.storage.shield import shielded


@pytest.fixture(autouse=True)
def _listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interrupt, "_asked", False)
    before = {
        name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    interrupt.listen()
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def after(seconds: float) -> None:
    threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


def test_a_signal_within_the_block_is_heard_at_its_end() -> None:
    reached = list[str]()
    with pytest.raises(KeyboardInterrupt):
        with shielded():
            with shielded():
                signal.raise_signal(signal.SIGINT)
                reached.append("inner")
            reached.append("outer")
        reached.append("after")
    assert reached == ["inner", "outer"]
    with shielded():  # and only once
        pass


def test_outside_it_is_heard_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_it_takes_the_place_of_what_the_block_raises() -> None:
    with pytest.raises(KeyboardInterrupt), shielded():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("ended early")


def test_a_long_question_ends_soon_and_the_lake_answers_the_next(lake: Lake) -> None:
    after(0.3)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        lake.rows("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")
    assert time.monotonic() - begin < 20
    assert lake.rows("SELECT 1 AS one") == [{"one": 1}]


def test_what_is_being_committed_is_committed(lake: Lake) -> None:
    with pytest.raises(KeyboardInterrupt):
        lake.commit(
            lambda cursor: (
                cursor.execute("CREATE TABLE kept (n INTEGER)"),
                signal.raise_signal(signal.SIGINT),
                cursor.execute("INSERT INTO kept VALUES (1)"),
            ),
            "a test",
        )
    assert lake.rows("SELECT n FROM kept") == [{"n": 1}]


def test_a_signal_that_comes_at_any_time_of_many_commits_hangs_nothing(lake: Lake) -> None:
    lake.commit(lambda cursor: cursor.execute("CREATE TABLE many (n INTEGER)"), "a test")
    done = 0
    for n in range(25):
        with pytest.raises(KeyboardInterrupt):
            after(0.01 + 0.003 * n)
            while True:
                lake.commit(lambda cursor: cursor.execute("INSERT INTO many VALUES (1)"), "a test")
                done += 1
    [row] = lake.rows("SELECT count(*) AS n FROM many")
    assert done <= row["n"] <= done + 25

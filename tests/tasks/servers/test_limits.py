"""One set of limits for all who ask a server: over threads, narrowed by overload, widened again by
answers.
"""

import asyncio
import threading
import time
from email.utils import formatdate

import pytest

from dapflow.tasks.servers.limits import Gate, Rate, shared_limits
from tests.helpers.model_servers import Behaviour
from tests.tasks.sampling.engines.sampled import requests, sample


def test_who_asks_the_same_server_under_the_same_limits_shares_them() -> None:
    assert shared_limits("a", 4, 60, None) is shared_limits("a", 4, 60, None)
    assert shared_limits("a", 4, 60, None) is not shared_limits("b", 4, 60, None)


def test_two_threads_together_keep_a_rate() -> None:
    rate, began = Rate(per_second=100, burst=1), time.monotonic()

    async def take() -> None:
        for _ in range(10):
            await rate.take(1)

    threads = [threading.Thread(target=lambda: asyncio.run(take())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 0.18  # 19 gaps of 10 ms


def test_two_threads_together_keep_to_the_places() -> None:
    gate, inside, most = Gate(3), 0, 0
    lock = threading.Lock()

    async def visit() -> None:
        nonlocal inside, most
        await gate.enter()
        with lock:
            inside += 1
            most = max(most, inside)
        await asyncio.sleep(0.005)
        with lock:
            inside -= 1
        gate.leave()

    async def visits() -> None:
        await asyncio.gather(*(visit() for _ in range(20)))

    threads = [threading.Thread(target=lambda: asyncio.run(visits())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (3, 0)


def test_overload_halves_the_places_once_a_round_and_answers_bring_them_back() -> None:
    gate, sent = Gate(16), time.monotonic()
    for _ in range(16):
        gate.overloaded(sent)  # all of one round
    assert gate.open == 8
    gate.overloaded(time.monotonic())
    assert gate.open == 4
    for _ in range(5):
        gate.went_well()
    assert 5 <= gate.open < 6  # one more after a round of four
    for _ in range(500):
        gate.went_well()
    assert gate.open == 16


def test_who_gives_up_waiting_leaves_his_place_to_others() -> None:
    async def visit() -> None:
        gate = Gate(1)
        await gate.enter()
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        gate.leave()  # the place is given to the waiting one, who goes away at the same moment
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0)
        await asyncio.wait_for(gate.enter(), 1)

    asyncio.run(visit())


def test_a_server_that_says_too_many_is_asked_fewer_at_once() -> None:
    behaviour = Behaviour(misdeeds=["429"] * 8, seconds=0.02)
    sample(behaviour, requests(24, samples=1), concurrency=8)
    assert len(behaviour.answered) == 24


def test_a_server_that_asks_to_be_left_alone_is() -> None:
    behaviour, began = Behaviour(misdeeds=["429"], retry_after="1.5"), time.monotonic()
    sample(behaviour, requests(1, samples=1))
    assert time.monotonic() - began > 1.5  # without it, half a second at most
    assert len(behaviour.answered) == 1


def test_a_server_that_names_the_time_to_come_back_is_left_alone_until_then() -> None:
    until = time.time() + 3  # a date tells whole seconds
    behaviour = Behaviour(misdeeds=["429"], retry_after=formatdate(until, usegmt=True))
    sample(behaviour, requests(1, samples=1))
    assert time.time() > until - 1
    assert len(behaviour.answered) == 1


@pytest.mark.parametrize(
    "asked", ["soon", "-5", "Mon, 99 Foo 2026", "Wed, 21 Oct 2015 07:28:00 GMT"]
)
def test_what_says_no_time_to_come_is_no_reason_to_wait(asked: str) -> None:
    behaviour = Behaviour(misdeeds=["429"], retry_after=asked)
    sample(behaviour, requests(1, samples=1))
    assert len(behaviour.answered) == 1

"""How fast a server may be asked: requests and tokens a minute, and how many at once; one set of
limits a server and process.

    async with shared_limits(server, 32, None, None).turn(tokens): ...
Test: pytest tests/tasks/servers/test_limits.py
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_SECONDS_OF_TOKENS = 5  # a burst may take as many seconds' worth


class Rate:
    """So much a second, over all threads and event loops of the process (which aiolimiter's
    limiters are not for).
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._ahead = burst / per_second  # seconds that may be drawn in advance
        self._taken_until = 0.0
        self._lock = threading.Lock()

    async def take(self, amount: float) -> None:
        """Wait until so much may be taken. The turn is booked at once, so that nobody is overtaken
        for ever.
        """
        with self._lock:
            now = time.monotonic()
            self._taken_until = (
                max(self._taken_until, now - self._ahead) + amount / self._per_second
            )
            wait = self._taken_until - now
        if wait > 0:
            await asyncio.sleep(wait)


class Gate:
    """So many at once, over all threads: half as many after a sign of overload, and one more for
    each round that goes well.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = float(most)  # how many may be inside, rounded down
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._narrowed_at = 0.0
        self._lock = threading.Lock()

    async def enter(self) -> None:
        """Wait for a place."""
        with self._lock:
            if self._inside < int(self.open):
                self._inside += 1
                return
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            if not turn.cancelled():  # the place was given in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next."""
        with self._lock:
            self._inside -= 1
            self._admit()

    def went_well(self) -> None:
        """An answer came: one more may be inside after as many answers as there are places."""
        with self._lock:
            self.open = min(float(self.most), self.open + 1 / self.open)
            self._admit()

    def overloaded(self, sent_at: float) -> None:
        """The server said that it is too much. What was sent before the last narrowing tells
        nothing new.
        """
        with self._lock:
            if sent_at > self._narrowed_at:
                self.open = max(1.0, self.open / 2)
                self._narrowed_at = time.monotonic()

    def _admit(self) -> None:
        while self._waiting and self._inside < int(self.open):
            turn = self._waiting.popleft()
            self._inside += 1
            turn.get_loop().call_soon_threadsafe(self._give, turn)

    def _give(self, turn: asyncio.Future[None]) -> None:
        if turn.cancelled():
            self.leave()
        else:
            turn.set_result(None)


class Limits:
    """What one server bears."""

    def __init__(
        self, concurrency: int, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> None:
        self.gate = Gate(concurrency)
        self._requests = Rate(requests_per_minute / 60, 1) if requests_per_minute else None
        per_second = (tokens_per_minute or 0) / 60
        self._tokens = Rate(per_second, per_second * _SECONDS_OF_TOKENS) if per_second else None

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[None]:
        """Wait for a turn of so many tokens, prompt and completion together, and hold a place."""
        if self._requests is not None:
            await self._requests.take(1)
        if self._tokens is not None:
            await self._tokens.take(tokens)
        await self.gate.enter()
        try:
            yield
        finally:
            self.gate.leave()


_limits: dict[tuple[object, ...], Limits] = {}
_lock = threading.Lock()


def shared_limits(
    server: str, concurrency: int, requests_per_minute: int | None, tokens_per_minute: int | None
) -> Limits:
    """The limits that everybody in this process has who asks the server under these limits."""
    key = (server, concurrency, requests_per_minute, tokens_per_minute)
    with _lock:
        return _limits.setdefault(key, Limits(concurrency, requests_per_minute, tokens_per_minute))

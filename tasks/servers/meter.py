"""Who stands between a client and its server: asked before every attempt, told what it was and how
it ended. For budgets and ledgers.

Test: pytest tests/tasks/judging/asking/test_budget.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Asked = TypeVar("Asked", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How one request ended: the answer as it came, and why it is none (`error`, with the status
    where the server gave one; `unsent` where it never had it)."""

    answer: str | None = None
    error: str | None = None
    status: int | None = None
    unsent: bool = False
    seconds: float = 0.0


class Meter(Protocol[Asked]):
    """Stands at the door: asked before every attempt, told when it is sent and how it ended."""

    async def allow(self, request: Mapping[str, Any]) -> bool:
        """Whether it may be sent; whoever says yes expects `sent`."""
        ...

    def sent(self, key: Asked, request: Mapping[str, Any]) -> int:
        """It is about to be: returns a number for it."""
        ...

    def ended(self, number: int, attempt: Attempt) -> None:
        """Called before anybody uses the answer."""
        ...


class Unmetered:
    """Everything is allowed, and nothing written down."""

    async def allow(self, request: Mapping[str, Any]) -> bool:
        return True

    def sent(self, key: object, request: Mapping[str, Any]) -> int:
        return 0

    def ended(self, number: int, attempt: Attempt) -> None: ...

"""A budget that holds: what a call can take at most is set aside before it is sent, and given back
when the server has counted.

Test: pytest tests/tasks/judging/asking/test_budget.py
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage.ledger import Cost, Ledger, Spent
from dapflow.tasks.judging.asking.prices import Price
from dapflow.tasks.servers.meter import Attempt

_OVERHEAD = 64  # tokens that a chat template may add
_ROUNDING = 1e-9  # dollars


class Budget(BaseModel):
    """What one step of judging may take, calls that failed and those of killed runs included. None:
    no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_cost_usd: float | None = Field(
        default=None, ge=0, description="dollars, by the price list; for each step that judges"
    )
    max_calls: int | None = Field(
        default=None, ge=0, description="requests sent, those that are asked again too"
    )
    max_tokens: int | None = Field(default=None, ge=0, description="prompt and completion together")
    on_budget: Literal["go_on", "stop"] = Field(
        default="go_on",
        description="what happens to the rest: `over_budget` verdicts, or the run stops",
    )


class LedgerMeter:
    """Writes every attempt into the ledger, and lets none pass that could exceed the budget."""

    def __init__(self, model: str, budget: Budget, price: Price | None, ledger: Ledger) -> None:
        spent = ledger.spent()
        self.calls, self.tokens, self.usd = (
            spent.calls,
            spent.tokens,
            spent.usd,
        )  # with what is set aside for calls under way
        self._model = model
        self._budget = budget
        self._price = price
        self._ledger = ledger
        self._attempts: Counter[str] = Counter()
        self._under_way: dict[int, Cost] = {}
        self._allowed = 0  # calls that something is set aside for
        self._changed = asyncio.Event()

    @property
    def spent(self) -> Spent:
        """All that the version has taken so far."""
        return Spent(calls=self.calls, tokens=self.tokens, usd=self.usd)

    async def allow(self, request: Mapping[str, Any]) -> bool:
        """Whether the most that it can take still fits. While others are under way it waits for
        what they give back.
        """
        while not self.fits(request):
            if not self._allowed:
                return False
            await self._changed.wait()
        self.set_aside(request)
        return True

    def fits(self, request: Mapping[str, Any]) -> bool:
        """Whether the most that it can take fits now."""
        return self._fits(worst_case(request, self._price))

    def set_aside(self, request: Mapping[str, Any]) -> None:
        """Keep the most that it can take for it, until it has ended."""
        self._allowed += 1
        self.calls += 1
        self._add(worst_case(request, self._price), 1)

    def give_back(self, request: Mapping[str, Any]) -> None:
        """What was set aside for it, which was never sent."""
        self._allowed -= 1
        self.calls -= 1
        self._add(worst_case(request, self._price), -1)

    def sent(self, key: str, request: Mapping[str, Any]) -> int:
        """Write it down, with the most that it can take."""
        self._attempts[key] += 1
        most = worst_case(request, self._price)
        number = self._ledger.sent(key, self._model, request, self._attempts[key], most)
        self._under_way[number] = most
        return number

    def ended(self, number: int, attempt: Attempt) -> None:
        """Write down how it ended, and give back what it did not take."""
        most = self._under_way.pop(number)
        took = _taken(attempt, most, self._price)
        self._ledger.ended(number, attempt.answer, attempt.error, took, attempt.seconds)
        self._add(most, -1)
        self._add(took, 1)
        self._allowed -= 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _add(self, cost: Cost, sign: int) -> None:
        self.tokens += sign * cost.tokens
        self.usd += sign * (cost.usd or 0.0)

    def _fits(self, most: Cost) -> bool:
        limits = (
            (self._budget.max_calls, self.calls + 1),
            (self._budget.max_tokens, self.tokens + most.tokens),
            (self._budget.max_cost_usd, self.usd + (most.usd or 0.0) - _ROUNDING),
        )
        return all(limit is None or wanted <= limit for limit, wanted in limits)


def worst_case(request: Mapping[str, Any], price: Price | None) -> Cost:
    """The most that a request can take: no tokeniser makes more tokens of a text than it has bytes,
    and no answer is longer than asked for.
    """
    said = sum(len(turn["content"].encode()) for turn in request["messages"])
    return cost_of(said + _OVERHEAD, request["max_tokens"], price)


def cost_of(tokens_in: int, tokens_out: int, price: Price | None) -> Cost:
    """So many tokens at a price."""
    return Cost(
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        usd=None if price is None else price.of(tokens_in, tokens_out),
    )


def _taken(attempt: Attempt, most: Cost, price: Price | None) -> Cost:
    """What the server has counted; nothing where it turned the request away unread or never had it;
    else, since nobody knows, the most.
    """
    if attempt.unsent:
        return cost_of(0, 0, price)
    if attempt.status is not None and 400 <= attempt.status < 500 and attempt.status != 408:
        return cost_of(0, 0, price)
    try:
        usage = json.loads(attempt.answer or "")["usage"]
        tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return most
    return cost_of(*tokens, price) if min(tokens) >= 0 else most

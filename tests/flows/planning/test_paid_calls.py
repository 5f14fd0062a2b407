"""What goes over the network is priced step by step, less what the ledger knows; a price that
nobody knows is no price of zero.
"""

import pytest

from dapflow.flows.planning.paid_calls import paid_calls
from dapflow.storage import Lake
from dapflow.tasks.step import Call, Requests, Work


def asking(
    count: int, usd: float | None, *, limit: float | None = None, known: int = 0, model: str = "m"
) -> Call:
    """A planned step that asks so often, `known` of it answered in any lake."""
    requests = Requests(
        count=count, model=model, source="a list", usd=usd, limit=limit, known=lambda lake: known
    )
    return Call(
        kind="verdicts", step="s", activity="judging", title="t", version="v", code="c",
        parameters={}, parents={}, arguments={}, work=Work(calls=count, requests=requests),
    )  # fmt: skip


def test_steps_add_up_and_each_keeps_its_own_limit() -> None:
    calls = [asking(100, 0.01), asking(100, 0.01, limit=0.25, model="other")]
    assert paid_calls(calls, None) == {
        "calls": 200,
        "known": 0,
        "usd": pytest.approx(100 * 0.01 + 0.25),
        "models": {"m": "a list", "other": "a list"},
    }


def test_what_a_lake_knows_is_not_paid_again_and_without_a_lake_nothing_is_known(
    lake: Lake,
) -> None:
    paid = paid_calls([asking(100, 0.01, known=40)], lake)
    assert (paid["calls"], paid["known"], paid["usd"]) == (100, 40, pytest.approx(60 * 0.01))
    assert paid_calls([asking(100, 0.01, known=40)], None)["known"] == 0


def test_one_unknown_price_makes_the_cost_unknown() -> None:
    assert paid_calls([asking(100, 0.01), asking(1, None)], None)["usd"] is None


def test_steps_that_ask_nobody_over_the_network_cost_nothing() -> None:
    assert paid_calls([], None) == {"calls": 0, "known": 0, "usd": 0.0, "models": {}}

"""What the judges of a plan would be asked over the network, what the ledger holds of it already,
and about what the rest can cost at most.

paid_calls(calls, lake)  ->  {"calls": ..., "known": ..., "usd": ..., "models": {name: where its price is from}}
What a step would ask stands beside it (`work`), and in tasks/judging/work.py. Test: pytest
tests/flows/planning/test_paid_calls.py
"""

from collections.abc import Sequence
from typing import Any

from dapflow.storage import Lake
from dapflow.tasks.step import Call, Requests


def paid_calls(calls: Sequence[Call], lake: Lake | None) -> dict[str, Any]:
    """Of the steps that will run. usd: None where nobody knows a price; `known` counts what can be
    looked up before anything is sampled.
    """
    asked = [call.work.requests for call in calls if call.work.requests is not None]
    known = [0 if lake is None else requests.known(lake) for requests in asked]
    costs = [_usd(*step) for step in zip(asked, known, strict=True)]
    unknown = any(cost is None for cost in costs)
    return {
        "calls": sum(requests.count for requests in asked),
        "known": sum(known),
        "usd": None if unknown else sum((cost for cost in costs if cost is not None), 0.0),
        "models": {requests.model: requests.source for requests in asked},
    }


def _usd(requests: Requests, known: int) -> float | None:
    """What a step's requests can cost at most, but for those whose answers are known."""
    if requests.usd is None:
        return None
    most = (requests.count - known) * requests.usd
    return most if requests.limit is None else min(most, requests.limit)

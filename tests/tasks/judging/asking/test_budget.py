"""The budget is never exceeded, whatever is under way at once; failures count; what nobody knows is
taken to have cost the most.
"""

from pathlib import Path
from socket import socket

import pytest

from dapflow.storage import Lake, UserError
from dapflow.storage.ledger import Cost, Ledger
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.asking.budget import Budget, LedgerMeter, worst_case
from dapflow.tasks.judging.asking.prices import Price, price_of
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.servers.meter import Attempt
from tests.helpers.judging import PRICES, billed, compare, matches, prefers_good
from tests.helpers.model_servers import Behaviour, openai_server


@pytest.fixture
def prices(tmp_path: Path) -> str:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES)
    return str(file)


@pytest.mark.parametrize("faults", [0.0, 0.3])
def test_no_cent_too_much_with_sixty_four_under_way(faults: float, lake: Lake, prices: str) -> None:
    behaviour = Behaviour(reply=prefers_good, seconds=0.01, faults=faults, hang_seconds=0.4)
    endpoint = {"concurrency": 64, "timeout_seconds": 0.3}
    verdicts = compare(
        lake,
        behaviour,
        matches(150),
        endpoint=endpoint,
        prices=prices,
        budget=Budget(max_cost_usd=150.0),
    )
    outcomes = {one.outcome for one in verdicts}
    assert outcomes == {"win", "over_budget"}
    [kept] = lake.rows("SELECT sum(usd) AS usd, count(*) AS calls FROM calls")
    assert kept["calls"] == len(behaviour.asked)
    assert billed(behaviour) <= kept["usd"] + 1e-9
    assert kept["usd"] <= 150.0
    assert (
        kept["usd"] > 130.0
    )  # and most of it was used: a call takes 13 dollars at most, and less than 2 in truth


def test_calls_and_tokens_are_limited_too(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good)
    assert [
        one.outcome for one in compare(lake, behaviour, matches(5), budget=Budget(max_calls=4))
    ].count("win") == 2
    assert len(behaviour.asked) == 4
    most = worst_case(behaviour.asked[0], None).tokens
    compare(lake, behaviour, matches(9), version="v2", budget=Budget(max_tokens=most - 1))
    assert len(behaviour.asked) == 4  # what does not fit at its most is not sent


def test_calls_of_a_killed_run_count_and_what_is_known_costs_nothing(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good)
    with Ledger(lake, "v1") as killed:
        killed.sent("k", "judge", {}, 1, Cost(tokens_in=10))  # and never ended
    assert {
        one.outcome for one in compare(lake, behaviour, matches(2), budget=Budget(max_calls=4))
    } == {"win", "over_budget"}
    assert len(behaviour.asked) == 3
    compare(lake, behaviour, matches(2), version="v2", budget=Budget(max_calls=1))
    assert len(behaviour.asked) == 4  # three of the four answers were there


def test_what_was_not_sent_is_not_called_refused(lake: Lake) -> None:
    said: list[str] = []
    with openai_server(Behaviour(reply=prefers_good)) as url:
        by = LLM(
            endpoint=Endpoint(base_url=url, model="judge", concurrency=1),
            budget=Budget(max_calls=2),
        )
        with llm_judge(lake, "v1", by, said.append) as judge:
            list(judge.compare(matches(2)))
    assert said == ["judge: 2 answered, 0 refused, 2 not sent, since the budget is spent"]


def test_a_budget_may_stop_the_run(lake: Lake) -> None:
    with pytest.raises(
        UserError,
        match=r"The budget of judge is spent \(2 calls, .*\) and 2 of 3 verdicts are missing: allow more",
    ):
        compare(
            lake,
            Behaviour(reply=prefers_good),
            matches(3),
            budget=Budget(max_calls=2, on_budget="stop"),
            endpoint={"concurrency": 1},
        )


def test_what_the_server_turns_away_unread_costs_nothing_and_counts_as_a_call(
    lake: Lake, prices: str
) -> None:
    behaviour = Behaviour(reply=prefers_good, misdeeds=["429", "429", "500"])
    compare(lake, behaviour, matches(1), prices=prices)
    kept = {
        row["error"]: row["usd"]
        for row in lake.rows("SELECT error, max(usd) AS usd FROM calls GROUP BY error")
    }
    assert kept["status 429"] == 0.0
    assert (
        kept["status 500"]
        == worst_case(behaviour.asked[0], Price(**{"in": 10_000, "out": 20_000})).usd
    )


def test_a_server_that_is_not_there_costs_nothing_and_one_that_hangs_up_may_have(
    lake: Lake, prices: str
) -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        nobody = {
            "base_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1",
            "patience_minutes": 0.001,
        }
        with pytest.raises(UserError, match="no connection"):
            compare(lake, Behaviour(), matches(1), endpoint=nobody, prices=prices)
    [kept] = lake.rows("SELECT sum(usd) AS usd, count(*) AS calls FROM calls")
    assert (kept["usd"], kept["calls"] > 0) == (0.0, True)
    behaviour = Behaviour(reply=prefers_good, misdeeds=["close"])
    compare(lake, behaviour, matches(1), version="v2", prices=prices)
    [cut] = lake.rows("SELECT usd FROM calls WHERE version = 'v2' AND error IS NOT NULL")
    assert cut["usd"] == worst_case(behaviour.asked[0], Price(**{"in": 10_000, "out": 20_000})).usd


@pytest.mark.parametrize("said", ["-5", "1e999", "null", '"many"'])
def test_a_count_of_tokens_that_cannot_be_is_taken_to_be_the_most(said: str, lake: Lake) -> None:
    with Ledger(lake, "v1") as ledger:
        meter = LedgerMeter("judge", Budget(max_tokens=1000), None, ledger)
        request = {"messages": [{"role": "user", "content": "Which?"}], "max_tokens": 8}
        meter.set_aside(request)
        answer = f'{{"usage": {{"prompt_tokens": {said}, "completion_tokens": 1}}}}'
        meter.ended(meter.sent("k", request), Attempt(answer=answer))
        assert meter.spent.tokens == worst_case(request, None).tokens


def test_a_model_without_a_price_is_free_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    known = price_of(Endpoint(model="gpt-4o-mini"), None)
    assert known.price == Price(**{"in": 0.15, "out": 0.60})
    assert known.source == "prices.toml of 2026-06-21"
    assert known.price.of(1_000_000, 500_000) == pytest.approx(0.45)
    here = price_of(Endpoint(model="mine", base_url="http://127.0.0.1:8000/v1"), None).price
    assert here == Price(**{"in": 0, "out": 0})
    assert price_of(Endpoint(model="mine", base_url="http://10.0.0.7/v1"), None).price is None
    with pytest.raises(
        UserError,
        match="Nobody knows what mine costs, so max_cost_usd cannot be kept: name its price",
    ):
        LLM(endpoint=Endpoint(model="mine"), budget=Budget(max_cost_usd=1)).priced()


def test_a_price_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[models]\n"gpt-4o" = 3')
    with pytest.raises(
        UserError, match=r"The price list .*mine.toml cannot be read: it is TOML with"
    ):
        price_of(Endpoint(model="gpt-4o"), str(tmp_path / "mine.toml"))

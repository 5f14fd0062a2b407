"""The batch interface: half the price, answers in whatever order, and a killed run that finds its
own batch again.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dapflow.storage import Lake, UserError
from dapflow.tasks.judging.asking import batch_server
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.asking.budget import Budget
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.batch_jobs import Batches
from tests.helpers.judging import PRICES, billed, compare, matches, prefers_good
from tests.helpers.lakes import empty_lake
from tests.helpers.model_servers import Behaviour, openai_server
from tests.helpers.writers import FORKED

NEVER = 10**9  # looks at a batch until it has ended


def outcomes(
    lake: Lake, behaviour: Behaviour, count: int, version: str = "v1", **settings: object
) -> list[str]:
    return [
        one.outcome
        for one in compare(lake, behaviour, matches(count), version=version, batch=True, **settings)
    ]


def test_one_batch_answers_all_at_half_the_price_and_nothing_is_asked_twice(
    lake: Lake, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    behaviour = Behaviour(reply=prefers_good)
    assert outcomes(lake, behaviour, 5, prices=str(prices)) == ["win"] * 5
    assert (len(behaviour.batches.jobs), len(behaviour.asked)) == (1, 0)
    [spent] = lake.rows(
        "SELECT sum(usd) AS usd, count(*) AS calls, count(DISTINCT key) AS keys FROM calls WHERE error IS NULL"
    )
    assert spent == {"usd": pytest.approx(billed(behaviour) / 2), "calls": 10, "keys": 10}
    assert set(behaviour.batches.came) == {
        row["key"] for row in lake.rows("SELECT key FROM calls")
    }  # custom ids are the ledger's keys
    assert [row["state"] for row in lake.rows("SELECT state FROM batches")] == ["done"]
    assert outcomes(lake, behaviour, 5, version="v2", prices=str(prices)) == ["win"] * 5
    assert [one.outcome for one in compare(lake, behaviour, matches(5), version="v3")] == [
        "win"
    ] * 5  # batched or not: the same calls
    assert (len(behaviour.batches.jobs), len(behaviour.asked)) == (1, 0)


def test_expired_and_failed_lines_go_into_another_batch_and_end_as_typed_failures(
    lake: Lake,
) -> None:
    behaviour = Behaviour(reply=prefers_good, batches=Batches(fates=["expired"]))
    assert outcomes(lake, behaviour, 4) == ["win"] * 4
    assert (len(behaviour.batches.jobs), sum(behaviour.batches.came.values())) == (
        2,
        8 + 4,
    )  # half of the first expired
    fates = {"500": 1, "garbage": 1, "expired": 9}
    behaviour = Behaviour(reply=prefers_good, batches=Batches(line_fate=_by_turns(fates)))
    found = compare(lake, behaviour, matches(9)[4:], version="v2", batch=True, max_invalid_rate=1)
    assert sorted(one.outcome for one in found) == ["refused", "win", "win", "win", "win"]
    assert {one.note for one in found if one.outcome == "refused"} == {"batch_expired, 3 times"}
    assert sorted(behaviour.batches.came.values()) == [1] * 7 + [2, 2, 3]
    errors = {
        row["error"]: row["n"]
        for row in lake.rows(
            "SELECT error, count(*) AS n FROM calls WHERE version = 'v2' GROUP BY error"
        )
    }
    assert errors == {
        None: 9,
        "line status 500": 1,
        "completed": 1,
        "batch_expired": 3,
    }  # one whose line cannot be read has no answer


def _by_turns(fates: dict[str, int]) -> Callable[[str, int], str | None]:
    """The first lines that come have these fates, each so many times."""
    chosen: dict[str, str] = {}

    def fate(key: str, times: int) -> str | None:
        if key not in chosen and len(chosen) < len(fates):
            chosen[key] = list(fates)[len(chosen)]
        name = chosen.get(key)
        return name if name is not None and times <= fates[name] else None

    return fate


def test_what_the_server_will_not_answer_is_refused_at_once(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=prefers_good, refuse=lambda prompt: "too long" if "Question 1?" in prompt else None
    )
    found = compare(lake, behaviour, matches(2), batch=True, max_invalid_rate=1)
    assert [(one.outcome, one.note) for one in found] == [("win", None), ("refused", "too long")]
    assert len(behaviour.batches.jobs) == 1


def test_a_batch_that_fails_whole_says_why_and_the_next_run_submits_another(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good, batches=Batches(fates=["failed"]))
    with pytest.raises(
        UserError, match=r"has failed batch batch_0 \(Enqueued token limit reached.\)"
    ):
        outcomes(lake, behaviour, 2)
    assert lake.rows("SELECT * FROM calls") == []  # nothing was read, nothing is paid
    assert outcomes(lake, behaviour, 2) == ["win"] * 2


def test_a_submission_whose_answer_is_lost_is_not_made_twice(lake: Lake) -> None:
    behaviour = Behaviour(reply=prefers_good, batches=Batches(lose_submissions=1))
    assert outcomes(lake, behaviour, 3) == ["win"] * 3
    assert len(behaviour.batches.jobs) == 1


def test_the_budget_holds_at_the_batch_price_and_what_is_left_of_it_goes_into_another_batch(
    lake: Lake, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    behaviour = Behaviour(reply=prefers_good)
    found = outcomes(lake, behaviour, 30, prices=str(prices), budget=Budget(max_cost_usd=20.0))
    assert set(found) == {"win", "over_budget"}
    [kept] = lake.rows("SELECT sum(usd) AS usd FROM calls")
    assert kept["usd"] == pytest.approx(billed(behaviour) / 2)
    assert 10.0 < kept["usd"] <= 20.0
    assert len(behaviour.batches.jobs) > 1


def judge(
    address: str, url: str, version: str = "v1", count: int = 6, said: Path | None = None
) -> list[str]:
    """Compare by batch; outcomes. said: a file for what the user is told, sentence by sentence."""
    by = LLM(endpoint=Endpoint(base_url=url, model="judge"), batch=True)
    with (
        (said or Path(os.devnull)).open("a", buffering=1) as told,
        Lake(address) as lake,
        llm_judge(lake, version, by, lambda sentence: print(sentence, file=told)) as panel,
    ):
        return [verdict.outcome for verdict in panel.compare(matches(count))]


def killed_while_it_waits(behaviour: Behaviour, address: str, url: str) -> None:
    """A run of version v1 whose batch is on its way when it is killed; afterwards the batch ends at
    the next look.
    """
    empty_lake(Path(address))
    process = FORKED.Process(target=judge, args=(address, url))
    process.start()
    until_looked_at(behaviour)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    ends_now(behaviour)


def until_looked_at(behaviour: Behaviour) -> None:
    """Until some run waits for a batch."""
    while not any(job["left"] < NEVER for job in list(behaviour.batches.jobs.values())):
        time.sleep(0.01)


def ends_now(behaviour: Behaviour) -> None:
    for job in behaviour.batches.jobs.values():
        job["left"] = 1


@pytest.mark.parametrize(
    ("moment", "version"),
    [
        ("while it waits", "v1"),
        ("before the id is known", "v2"),
        pytest.param("while it waits", "v2", marks=pytest.mark.slow),
        pytest.param("before the id is known", "v1", marks=pytest.mark.slow),
    ],
)  # v2: what the same step's dataset is called by a newer version of the code
def test_a_killed_run_picks_its_batch_up_again(moment: str, version: str, tmp_path: Path) -> None:
    behaviour, address = Behaviour(reply=prefers_good, batches=Batches(looks=NEVER)), str(tmp_path)
    with openai_server(behaviour) as url:
        killed_while_it_waits(behaviour, address, url)
        if moment == "before the id is known":  # as if killed between the submission and its answer
            with Lake(address) as lake:
                lake.commit(
                    lambda cursor: cursor.execute("UPDATE batches SET batch = NULL"),
                    "forget the id",
                )
        assert judge(address, url, version) == ["win"] * 6
    assert len(behaviour.batches.jobs) == 1
    assert set(behaviour.batches.came.values()) == {1}
    with Lake(address) as lake:
        assert lake.rows("SELECT DISTINCT version FROM calls") == [
            {"version": version}
        ]  # paid by who uses it, once
        assert lake.rows("SELECT count(*) AS n, count(DISTINCT key) AS keys FROM calls") == [
            {"n": 12, "keys": 12}
        ]
        assert lake.rows("SELECT state FROM batches") == [{"state": "done"}]


def test_what_a_smaller_run_leaves_of_a_batch_is_there_for_the_next(tmp_path: Path) -> None:
    behaviour, address = Behaviour(reply=prefers_good, batches=Batches(looks=NEVER)), str(tmp_path)
    with openai_server(behaviour) as url:
        killed_while_it_waits(behaviour, address, url)
        assert judge(address, url, "v2", count=2) == ["win"] * 2
        with Lake(address) as lake:
            assert lake.rows("SELECT state, len(keys) AS left FROM batches") == [
                {"state": "open", "left": 8}
            ]
        assert judge(address, url, "v3") == ["win"] * 6
        with Lake(address) as lake:
            assert lake.rows("SELECT state FROM batches") == [{"state": "done"}]
    assert set(behaviour.batches.came.values()) == {1}
    assert len(behaviour.batches.came) == 12


def test_two_runs_that_are_alive_share_a_batch(tmp_path: Path) -> None:
    behaviour, address = (
        Behaviour(reply=prefers_good, batches=Batches(looks=NEVER)),
        str(tmp_path / "lake"),
    )
    empty_lake(Path(address))
    with openai_server(behaviour) as url:
        first = FORKED.Process(target=judge, args=(address, url, "v1"))
        first.start()
        until_looked_at(behaviour)
        second = FORKED.Process(target=judge, args=(address, url, "v2", 6, tmp_path / "second"))
        second.start()
        while (
            not (tmp_path / "second").exists()
            or "Another run waits for batch batch_0" not in (tmp_path / "second").read_text()
        ):
            time.sleep(0.05)
        ends_now(behaviour)
        for process in (first, second):
            process.join()
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert len(behaviour.batches.jobs) == 1
    assert set(behaviour.batches.came.values()) == {1}
    with Lake(address) as lake:
        assert lake.rows("SELECT version, count(*) AS n FROM calls GROUP BY version") == [
            {"version": "v1", "n": 12}
        ]  # paid once


@pytest.mark.parametrize("gone", ["batch", "file"])
def test_a_batch_that_the_server_has_forgotten_is_asked_again(gone: str, tmp_path: Path) -> None:
    behaviour, address = (
        Behaviour(reply=prefers_good, batches=Batches(looks=NEVER)),
        str(tmp_path / "lake"),
    )
    with openai_server(behaviour) as url:
        killed_while_it_waits(behaviour, address, url)
        if gone == "batch":
            behaviour.batches.jobs.clear()
        else:
            [job] = behaviour.batches.jobs.values()
            job["status"], job["output_file_id"] = "completed", "file-gone"
        behaviour.batches.looks = 1
        assert judge(address, url, "v2", said=tmp_path / "said") == ["win"] * 6
    assert set(behaviour.batches.came.values()) == {2}
    told = (tmp_path / "said").read_text()
    assert ("has no batch batch_0: what is missing is asked again." in told) == (gone == "batch")
    with Lake(address) as lake:
        assert {row["state"] for row in lake.rows("SELECT state FROM batches")} == (
            {"lost", "done"} if gone == "batch" else {"done"}
        )


def test_a_server_without_batches_is_named(lake: Lake) -> None:
    with openai_server(Behaviour()) as url:
        by = LLM(
            endpoint=Endpoint(
                base_url=url.replace("/v1", "/v2"), model="judge", patience_minutes=0.001
            ),
            batch=True,
        )
        with (
            llm_judge(lake, "v1", by) as panel,
            pytest.raises(UserError, match=r"no batch of that kind|does not serve batches"),
        ):
            list(panel.compare(matches(1)))


def test_an_answer_that_says_nothing_is_one_invalid_verdict_and_is_in_one_batch(lake: Lake) -> None:
    behaviour = Behaviour(
        reply=lambda prompt: (
            "Hard to tell." if "Question 1?" in prompt else f"Better: {prefers_good(prompt)}"
        )
    )
    assert outcomes(lake, behaviour, 3, reasoning=True, max_invalid_rate=1) == [
        "win",
        "invalid",
        "win",
    ]
    assert set(behaviour.batches.came.values()) == {1}


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_answer_that_cannot_be_used_is_asked_for_as_often_as_the_setting_says(
    attempts: int, lake: Lake
) -> None:
    nothing = {"choices": []}
    behaviour = Behaviour(
        batches=Batches(
            bodies=lambda body: (
                nothing if "Question 1?" in body["messages"][-1]["content"] else None
            )
        )
    )
    behaviour.reply = prefers_good
    found = compare(
        lake, behaviour, matches(3), batch=True, max_invalid_rate=1, endpoint={"attempts": attempts}
    )
    assert [verdict.outcome for verdict in found] == ["win", "refused", "win"]
    assert found[1].note == f"no choice in the answer, {attempts} times"
    assert len(behaviour.batches.jobs) == attempts


def test_no_separator_within_an_answer_ends_a_line_of_a_result(lake: Lake) -> None:
    separators = "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n"
    behaviour = Behaviour(
        reply=lambda prompt: (
            f"{'Both are right.'.join(separators)}The first is longer.\nBetter: {prefers_good(prompt)}"
        )
    )
    assert outcomes(lake, behaviour, 2, reasoning=True) == ["win"] * 2
    assert len(behaviour.batches.jobs) == 1


@pytest.mark.parametrize(
    "state",
    ["COMPLETED", "Completed", "succeeded", "EXPIRED", "canceled", "Cancelled", "TIMEOUT_EXCEEDED"],
)
def test_an_end_is_known_by_whatever_name_and_in_any_case_of_letters(
    state: str, lake: Lake
) -> None:
    assert (
        outcomes(lake, Behaviour(reply=prefers_good, batches=Batches(fates=[state])), 2)
        == ["win"] * 2
    )


def test_a_state_that_nobody_knows_ends_with_a_sentence_and_the_batch_is_picked_up_again(
    lake: Lake,
) -> None:
    behaviour = Behaviour(reply=prefers_good, batches=Batches(fates=["paused"]))
    with pytest.raises(
        UserError, match="says that batch batch_0 is 'paused', of which nobody knows what it means"
    ):
        outcomes(lake, behaviour, 2)
    assert [row["state"] for row in lake.rows("SELECT state FROM batches")] == ["open"]
    assert len(behaviour.batches.jobs) == 1


def test_a_batch_that_never_ends_is_waited_for_no_longer_than_its_window(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_server, "_WINDOW_HOURS", 0)
    behaviour = Behaviour(reply=prefers_good, batches=Batches(looks=NEVER))
    with pytest.raises(
        UserError,
        match=r"has not ended batch batch_0 \(in_progress\) within its 0 hours: cancel it there",
    ):
        compare(lake, behaviour, matches(1), batch=True, endpoint={"patience_minutes": 0.005})
    assert len(behaviour.batches.jobs) == 1


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "Use 'max_completion_tokens' instead of 'max_tokens'.",
            "set judge.batch=false, to ask it for max_completion_tokens",
        ),
        ("'temperature' does not support 0 with this model.", "set judge.temperature=1"),
        ("Insufficient Balance", "look at what it says"),
    ],
)
def test_a_batch_of_refusals_is_not_followed_by_another_and_its_words_are_told(
    words: str, remedy: str, lake: Lake
) -> None:
    behaviour = Behaviour(refuse=lambda prompt: words)
    with pytest.raises(UserError) as caught:
        outcomes(lake, behaviour, 3, max_invalid_rate=1)
    assert f"judge refuses the requests of a batch ({words}): {remedy}" in str(caught.value)
    assert len(behaviour.batches.jobs) == 1


def test_a_key_that_cannot_be_sent_is_named_for_batches_too(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk\x07planted")
    with pytest.raises(UserError, match="OPENAI_API_KEY cannot be sent"):
        outcomes(lake, Behaviour(reply=prefers_good), 1)

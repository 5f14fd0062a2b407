"""A call is on the record before it is sent and before it is used; however a process ends, its
calls come into the lake once.
"""

import os
import signal
from pathlib import Path

import pytest

from dapflow.storage import Lake
from dapflow.storage.ledger import Cost, Ledger, Spent, known_answers
from dapflow.storage.versions import Opening, open_version
from tests.helpers.writers import FORKED


def call(ledger: Ledger, key: str, answer: str | None = "{}", error: str | None = None) -> None:
    number = ledger.sent(
        key, "judge", {"messages": ["é"]}, 1, Cost(tokens_in=9, tokens_out=1, usd=0.5)
    )
    ledger.ended(number, answer, error, Cost(tokens_in=2, tokens_out=1, usd=0.125), 0.25)


def test_a_call_is_kept_whole_and_found_by_its_key(lake: Lake) -> None:
    with Ledger(lake, "v1") as ledger:
        call(ledger, "a", '{"x": "ü"}')
        assert ledger.find(["a", "b"]) == {"a": '{"x": "ü"}'}  # also while it is under way
    assert not list((lake.root / "ledger").iterdir())
    [row] = lake.rows("SELECT * FROM calls")
    assert row["call"] == f"{row['journal']}-00000001"
    kept = {
        name: row[name]
        for name in (
            "key",
            "version",
            "model",
            "attempt",
            "request",
            "answer",
            "error",
            "usd",
            "seconds",
        )
    }
    assert kept == {
        "key": "a", "version": "v1", "model": "judge", "attempt": 1, "request": '{"messages": ["é"]}', "answer": '{"x": "ü"}',
        "error": None, "usd": 0.125, "seconds": 0.25,
    }  # fmt: skip
    with Ledger(lake, "v2") as other:
        assert other.find(["a", "b"]) == {"a": '{"x": "ü"}'}
        assert other.spent() == Spent()


def test_a_failure_is_no_answer_and_counts(lake: Lake) -> None:
    with Ledger(lake, "v1") as ledger:
        call(ledger, "a", "half a JS", "half an answer")
        call(ledger, "b", None, "status 500")
    assert known_answers(lake, ["a", "b"]) == {}
    with Ledger(lake, "v1") as ledger:
        assert ledger.spent() == Spent(calls=2, tokens=6, usd=0.25)


def killed(address: str) -> None:
    """A process that dies with one call answered and one under way."""
    ledger = Ledger(Lake(address), "v1")
    call(ledger, "a")
    ledger.sent("b", "judge", {}, 1, Cost(tokens_in=9, tokens_out=1, usd=0.5))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_nothing_that_was_answered(lake: Lake) -> None:
    process = FORKED.Process(target=killed, args=(str(lake.root),))
    process.start()
    process.join()
    [journal] = (lake.root / "ledger").iterdir()
    with journal.open("ab") as stream:
        stream.write(b'{"call": 2, "answer": "cut o')  # as a power cut may leave it
    with Ledger(lake, "v1") as ledger:
        assert ledger.find(["a", "b"]) == {"a": "{}"}
        assert ledger.spent() == Spent(
            calls=2, tokens=13, usd=0.625
        )  # (2 + 1) + (9 + 1): what was under way has cost the most it can
    assert [row["error"] for row in lake.rows("SELECT error FROM calls ORDER BY call")] == [
        None,
        "killed",
    ]


def test_a_journal_that_is_there_already_is_not_added_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(lake, "v1")
    call(ledger, "a")
    with monkeypatch.context() as patched:
        patched.setattr(
            Path, "unlink", lambda *_, **__: None
        )  # as if killed between the commit and the removal
        ledger.close()
    assert len(list((lake.root / "ledger").iterdir())) == 1
    Ledger(lake, "v2").close()
    assert [row["key"] for row in lake.rows("SELECT key FROM calls")] == ["a"]
    assert not list((lake.root / "ledger").iterdir())


def test_a_journal_of_a_living_process_is_left_alone_and_read(lake: Lake) -> None:
    with Ledger(lake, "v1") as one:
        call(one, "a")
        with Ledger(lake, "v2") as other:
            assert other.find(["a"]) == {"a": "{}"}
        assert len(list((lake.root / "ledger").iterdir())) == 1
    assert [row["version"] for row in lake.rows("SELECT version FROM calls")] == ["v1"]


def test_both_orders_of_a_comparison_are_kept(lake: Lake) -> None:
    version = "0" * 16
    with open_version(
        lake, Opening(kind="verdicts", version=version, step="judge", code="c", parameters={})
    ) as opened:
        opened.write(
            0,
            [
                {
                    "id": opened.row_id(0),
                    "outcome": "win",
                    "score": 0.75,
                    "forward": 0.8,
                    "backward": 0.3,
                }
            ],
        )  # type: ignore[union-attr]
        ref = opened.complete({}, None, None)  # type: ignore[union-attr]
    [row] = lake.rows_of(ref)
    assert (row["forward"], row["backward"], row["note"]) == (0.8, 0.3, None)

"""The line of promoted policies: one after the other, whoever decides, and however many decide at
once.
"""

from pathlib import Path

import pytest

from dapflow.storage import Lake, LakeError, ModelRef
from dapflow.storage.garbage import find_garbage
from dapflow.storage.promotions import Action, Decision, decide, decided_by, line_of, promotions
from dapflow.tasks.prompts.preferences import IMPORTED
from tests.helpers.lakes import Made, empty_lake, named
from tests.helpers.writers import FORKED


def put(
    lake: Lake, candidate: str, action: Action = "promote", run: str | None = None
) -> dict[str, object]:
    return decide(
        lake,
        line_of(lake, "base"),
        Decision(action=action, candidate=candidate, reason="why", run=run or candidate),
    )


def test_a_promoted_policy_is_the_next_nights_input_and_a_kept_one_changes_nothing(
    lake: Lake,
) -> None:
    assert (line_of(lake, "base").policy, line_of(lake, "base").slice) == (None, 1)
    put(lake, "a")
    put(lake, "b", "keep")
    line = line_of(lake, "base")
    assert (line.policy, line.slice, line.number) == (
        "a",
        3,
        2,
    )  # the prompts of the night that was not promoted are used up too
    assert line_of(lake, "other family").policy is None
    assert [(row["action"], row["policy"], row["candidate"]) for row in promotions(lake)] == [
        ("promote", "a", "a"),
        ("keep", "a", "b"),
    ]


def test_decisions_are_in_the_log(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="dapflow"):
        put(lake, "a", run="r")
    (record,) = [one for one in caplog.records if one.getMessage() == "policy.decided"]
    told = {
        "run": "r",
        "line": "base",
        "number": 1,
        "action": "promote",
        "policy": "a",
        "candidate": "a",
        "slice": 1,
        "reason": "why",
    }
    assert record.__dict__["dapflow"] == told


def test_what_comes_from_a_policy_that_is_no_longer_the_promoted_one_is_not_promoted(
    lake: Lake,
) -> None:
    put(lake, "a")
    stale = line_of(lake, "base")
    put(lake, "b")
    row = decide(lake, stale, Decision(action="promote", candidate="c", reason="why", run="c"))
    assert (row["action"], row["policy"]) == ("keep", "b")
    assert "meanwhile another policy was promoted" in row["reason"]


def test_a_run_that_is_tried_again_is_told_what_it_has_decided(lake: Lake) -> None:
    assert decided_by(lake, "r") is None
    first = put(lake, "a", run="r")
    assert put(lake, "b", run="r") == first == decided_by(lake, "r")
    assert len(promotions(lake)) == 1


def test_by_hand_takes_no_prompts(lake: Lake) -> None:
    put(lake, "a")
    decide(lake, line_of(lake, "base"), Decision(action="roll back", candidate="z", reason="why"))
    assert (line_of(lake, "base").policy, line_of(lake, "base").slice) == ("z", 2)


def test_promoted_is_a_name(lake: Lake, made: Made) -> None:
    with pytest.raises(LakeError, match="No policy has been promoted yet"):
        lake.ref("promoted")
    put(lake, made["trained"].version)
    assert lake.ref("promoted") == ModelRef("models", made["trained"].version, 1)
    put(lake, named("another"), "keep")
    assert lake.ref("promoted") == made["trained"]


def test_the_promoted_policy_and_what_it_came_from_is_no_garbage(lake: Lake, made: Made) -> None:
    lake.commit(
        lambda cursor: cursor.execute(
            "INSERT INTO runs (run, recipe, state, started_at) VALUES ('r', 'rso', 'done', now())"
        ),
        "r",
    )
    lake.commit(
        lambda cursor: cursor.execute("UPDATE runs SET started_at = now() + INTERVAL 1 HOUR"),
        "all is older than the newest run",
    )
    assert made["pairs"].version in {
        one.info.version for one in find_garbage(lake, imports=[IMPORTED])
    }
    put(lake, made["trained"].version)
    assert find_garbage(lake, imports=[IMPORTED]) == []


def _night(address: str, name: str, count: int) -> None:
    with Lake(address) as lake:
        for number in range(count):
            line = line_of(lake, "base")
            decide(
                lake,
                line,
                Decision(
                    action="promote",
                    candidate=f"{name} {number} after {line.policy}",
                    reason="why",
                    run=f"{name} {number}",
                ),
            )


def test_processes_that_decide_at_once_make_one_line(tmp_path: Path) -> None:
    empty_lake(tmp_path / "lake")
    nights = [
        FORKED.Process(target=_night, args=(str(tmp_path / "lake"), name, 5)) for name in "ab"
    ]
    for night in nights:
        night.start()
    for night in nights:
        night.join()
        assert night.exitcode == 0
    with Lake(tmp_path / "lake") as lake:
        rows = promotions(lake)
    assert [row["number"] for row in rows] == list(range(1, 11))
    policy = None
    for row in rows:
        assert row["previous"] == policy
        assert row["action"] == "keep" or row["candidate"].endswith(f" after {policy}")
        policy = row["policy"]

"""What differs between two versions: rows matched by what they are about, verdicts that changed,
prompts whose winner flipped.
"""

import pyarrow as pa
import pytest

from dapflow.storage import Lake, LakeError, Ref
from dapflow.storage.diff import diff
from tests.helpers.lakes import Made, ids, iteration, named, write


def scores(lake: Lake, made: Made, name: str, values: list[float]) -> Ref:
    """Verdicts on the first completions of an iteration."""
    version, completions, prompts = named(name), made["completions"], made["prompts"]
    rows = {
        "id": ids(version, len(values)), "completion_id": ids(completions.version, len(values)), "score": values,
        "prompt_id": [f"{prompts.version}-{place // 4:08d}" for place in range(len(values))], "outcome": ["scored"] * len(values),
    }  # fmt: skip
    return write(
        lake,
        "verdicts",
        version,
        "judge",
        pa.table(rows),
        {"completions": completions, "by": made["policy"]},
    )


def evaluation(lake: Lake, made: Made, name: str, after: list[float]) -> Ref:
    """A policy whose answers were given these scores, against an old one with 0.5 each. One answer
    a prompt.
    """
    policy = write(
        lake,
        "models",
        named(name),
        "train",
        pa.table({"id": ids(named(name), 1), "role": ["policy"]}),
        {},
    )
    judged = {}
    for side, values in (("before", [0.5] * len(after)), ("after", after)):
        version = named(f"{name} {side}")
        rows = {
            "id": ids(version, len(values)),
            "prompt_id": ids(made["prompts"].version, len(values)),
            "score": values,
        }
        judged[f"judged_{side}"] = write(
            lake, "verdicts", version, "judge", pa.table(rows), {"completions": made["completions"]}
        )
    version = named(f"{name} metrics")
    rows = {
        "id": ids(version, 1),
        "subject": [policy.version],
        "name": ["win_rate"],
        "value": [0.5],
    }
    write(lake, "metrics", version, "evaluate", pa.table(rows), {"policy": policy, **judged})
    return policy


def test_rows_are_matched_by_what_they_are_about(lake: Lake, made: Made) -> None:
    other = iteration(lake, 2, made["trained"])
    same = diff(lake, made["pairs"].version, f"pairs@{made['pairs'].version[:8]}")
    assert (same["same"], same["added"], same["removed"], same["changed"]) == (4, 0, 0, 0)
    found = diff(lake, made["prompts"].version, other["prompts"].version)
    assert (found["same"], found["added"], found["removed"], found["changed"]) == (0, 4, 4, 0)


def test_a_changed_verdict_is_shown_with_both_values(lake: Lake, made: Made) -> None:
    one, two = (
        scores(lake, made, "one", [1.0, 2.0, 3.0]),
        scores(lake, made, "two", [1.0, -2.0, 3.0, 4.0]),
    )
    found = diff(lake, one.version, two.version)
    assert (found["same"], found["added"], found["removed"], found["changed"]) == (2, 1, 0, 1)
    [changed] = [row for row in found["changes"] if row["change"] == "changed"]
    assert (changed["prompt"], changed["a"], changed["b"]) == (
        "question 1.0 of a prompt",
        "scored 2.0",
        "scored -2.0",
    )


def test_two_policies_are_compared_by_the_prompts_whose_winner_flipped(
    lake: Lake, made: Made
) -> None:
    one, two = (
        evaluation(lake, made, "one", [0.9, 0.9, 0.1, 0.5]),
        evaluation(lake, made, "two", [0.9, 0.1, 0.9, 0.5]),
    )
    found = diff(lake, one.version, two.version)
    assert (found["same"], found["changed"]) == (2, 2)
    flips = [(row["prompt"], row["a"], row["b"]) for row in found["changes"]]
    assert flips == [
        ("question 1.1 of a prompt", "new", "old"),
        ("question 1.2 of a prompt", "old", "new"),
    ]


def test_a_prompt_that_was_not_judged_has_no_winner(lake: Lake, made: Made) -> None:
    none = [0.9, None, 0.1, 0.5]
    one, two = (
        evaluation(lake, made, "one", none),
        evaluation(lake, made, "two", [0.9, 0.1, 0.9, 0.5]),
    )  # type: ignore[arg-type]
    found = diff(lake, one.version, two.version)
    assert (found["same"], found["changed"], found["added"], found["removed"]) == (2, 1, 1, 0)


def test_what_cannot_be_compared_is_refused(lake: Lake, made: Made) -> None:
    with pytest.raises(LakeError, match="different nouns"):
        diff(lake, made["pairs"].version, made["prompts"].version)
    with pytest.raises(LakeError, match="no evaluation"):
        diff(lake, made["policy"].version, made["policy"].version)
    with pytest.raises(LakeError, match="Nothing in the lake"):
        diff(lake, "0000", "1111")

"""Lineage: from any id up to prompts and seeds and down to models and metrics; of a model, what it
learned from; what differs.
"""

import json
from collections.abc import Iterator

import pytest

from dapflow.storage import Lake, LakeError
from dapflow.storage.learned import learned_rows, levels
from dapflow.storage.lineage import Node, trace
from tests.helpers.lakes import Made, initial_policy, iteration, named


def walk(node: Node, side: str) -> Iterator[Node]:
    for one in getattr(node, side):
        yield one
        yield from walk(one, side)


def test_a_pair_leads_up_to_its_prompt_policy_judge_and_seeds_and_down_to_the_model_and_its_metrics(
    lake: Lake, made: Made
) -> None:
    pair, completions, verdicts = (
        made[kind].version for kind in ("pairs", "completions", "verdicts")
    )
    node = trace(lake, f"{pair}-00000002")
    above = {(one.role, one.id) for one in walk(node, "up")}
    assert {
        ("chosen", f"{completions}-00000008"), ("rejected", f"{completions}-00000011"), ("prompt", f"{made['prompts'].version}-00000002"),
        ("judged", f"{verdicts}-00000008"), ("judged", f"{verdicts}-00000011"), ("policy", made["policy"].version),
        ("accepted", f"{made['acceptances'].version}-00000011"), ("judge", made["policy"].version),
    } <= above  # fmt: skip
    assert {one.id.partition("-")[0] for one in walk(node, "up")} == {
        made[kind].version
        for kind in ("completions", "prompts", "policy", "acceptances", "verdicts")
    }
    assert [one.facts["seed"] for one in walk(node, "up") if one.kind == "completions"] == [9, 12]
    assert [(one.kind, one.id) for one in walk(node, "down")] == [
        ("models", made["trained"].version),
        ("metrics", made["metrics"].version),
    ]
    assert json.loads(json.dumps(node.as_json(), default=str))["down"][0]["down"][0]["facts"] == {
        "win_rate": 0.6
    }


def test_a_pair_that_was_left_out_trained_nothing(lake: Lake, made: Made) -> None:
    assert trace(lake, f"{made['pairs'].version}-0").down == []


def test_a_prompt_leads_down_to_everything_that_came_of_it_and_to_nothing_else(
    lake: Lake, made: Made
) -> None:
    node = trace(lake, f"{made['prompts'].version}-00000001")
    below = [one for one in walk(node, "down") if not one.repeated]
    places = {
        kind: sorted(int(one.id[-8:]) for one in below if one.kind == kind)
        for kind in ("completions", "verdicts", "acceptances", "pairs")
    }
    assert places == {
        "completions": [4, 5, 6, 7],
        "verdicts": [4, 5, 6, 7],
        "acceptances": [4, 5, 6, 7],
        "pairs": [1],
    }
    assert [one.id for one in below if one.kind == "models"] == [made["trained"].version]


def test_a_model_says_what_it_learned_from(lake: Lake, made: Made) -> None:
    found = {
        (row["level"], row["by"]): row["rows"] for row in levels(lake, made["trained"].version)
    }
    assert found == {
        ("pairs", "first-round"): 3, ("pairs left out", "tie"): 1, ("completions", made["policy"].version): 6,
        ("acceptances", "accepted"): 6, ("verdicts", named("initial")): 6, ("prompts", None): 3,
    }  # fmt: skip
    rows = [
        row for batch in learned_rows(lake, made["trained"].version) for row in batch.to_pylist()
    ]
    assert [row["pair"][-1] for row in rows] == ["1", "2", "3"]
    assert rows[0]["chosen_verdicts"] == [f"{made['verdicts'].version}-00000004"]
    assert (rows[0]["chosen_seed"], rows[0]["rejected_seed"], rows[0]["policy"]) == (
        5,
        8,
        made["policy"].version,
    )
    with pytest.raises(LakeError, match="not a complete model"):
        levels(lake, made["pairs"].version)


def test_a_version_shows_its_ancestors_and_what_was_made_of_it_each_once(
    lake: Lake, made: Made
) -> None:
    node = trace(lake, f"acceptances@{made['acceptances'].version[:6]}")
    assert node.facts["code"] == "c0de" and json.loads(node.facts["parameters"]) == {
        "step": "accept"
    }
    full = [one.id for one in walk(node, "up") if not one.repeated]
    assert sorted(full) == sorted(
        made[kind].version for kind in ("completions", "verdicts", "prompts", "policy")
    )
    assert {one.kind for one in walk(node, "down")} == {"pairs", "models", "metrics"}


def test_a_model_is_its_row_and_a_metric_leads_to_what_it_measures(lake: Lake, made: Made) -> None:
    assert trace(lake, f"{made['trained'].version}-0").id == made["trained"].version
    assert [one.id for one in trace(lake, f"{made['metrics'].version}-0").up] == [
        made["trained"].version
    ]


def test_an_id_may_be_shortened_as_long_as_it_is_unique(lake: Lake, made: Made) -> None:
    pairs = made["pairs"].version
    assert (
        lake.catalogue().resolve(pairs[:5])
        == lake.catalogue().resolve(f"pairs@{pairs[:5]}")
        == pairs
    )
    assert lake.catalogue().resolve(f"{pairs[:5]}-3") == f"{pairs}-00000003"
    for wrong, sentence in (
        ("zz", "Nothing in the lake"), ("", "Nothing in the lake"), (f"models@{pairs}", "Nothing in the lake"), (f"{pairs}-x", "a dash and a number"),
    ):  # fmt: skip
        with pytest.raises(LakeError, match=sentence):
            lake.catalogue().resolve(wrong)
    with pytest.raises(LakeError, match="has 4 rows"):
        trace(lake, f"{pairs}-9")


def test_an_ambiguous_beginning_names_the_candidates(lake: Lake) -> None:
    policy = initial_policy(lake)
    for number in range(1, 5):
        iteration(lake, number, policy)
    starts = [version[0] for version in lake.catalogue().versions]
    twice = next(start for start in starts if starts.count(start) > 1)
    with pytest.raises(LakeError, match=f"is the beginning of {starts.count(twice)} ids"):
        lake.catalogue().resolve(twice)

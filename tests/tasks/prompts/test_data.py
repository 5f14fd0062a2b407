"""The shipped sets: enough of each, whole, varied, and no two alike."""

import json
import re
from collections import Counter
from typing import Any

import pytest

from dapflow.tasks.prompts.sources import SHIPPED

DATA = SHIPPED


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize(
    ("name", "key", "least"),
    [
        ("prompts.jsonl", "prompt", 600),
        ("preferences.jsonl", "prompt", 600),
        ("seed_tasks.jsonl", "instruction", 175),
    ],
)
def test_there_are_enough_and_no_two_are_alike(name: str, key: str, least: int) -> None:
    texts = [row[key] for row in rows(name)]
    assert len(texts) >= least
    bags = [words(text) for text in texts]
    alike = [
        (texts[a], texts[b])
        for a in range(len(bags))
        for b in range(a)
        if len(bags[a] & bags[b]) > 0.7 * len(bags[a] | bags[b])
    ]
    assert alike == []


def test_no_text_is_a_placeholder() -> None:
    for name in ("prompts.jsonl", "preferences.jsonl", "seed_tasks.jsonl"):
        text = (DATA / name).read_text("utf-8").lower()
        assert not re.search(r"lorem ipsum|todo|placeholder text|insert text here|\bxxx\b", text), (
            name
        )


def test_prompts_vary_in_topic_kind_and_length() -> None:
    found = rows("prompts.jsonl")
    assert len({row["topic"] for row in found}) >= 14
    assert min(Counter(row["kind"] for row in found).values()) >= 10
    lengths = sorted(len(row["prompt"].split()) for row in found)
    assert lengths[len(lengths) // 4] <= 15 < 25 <= lengths[-len(lengths) // 6]


def test_preferences_have_faults_of_several_kinds_and_length_does_not_give_them_away() -> None:
    found = rows("preferences.jsonl")
    faults = Counter(row["fault"] for row in found)
    assert len(faults) == 7
    assert min(faults.values()) > 0.08 * len(found)
    assert {row["rating"] for row in found} == {"significantly", "better", "slightly"}
    for fault in (None, *faults):  # all together, and each kind by itself
        lengths = [
            (len(row["chosen"]), len(row["rejected"]))
            for row in found
            if fault in (None, row["fault"])
        ]
        longer = sum(chosen > rejected for chosen, rejected in lengths) / len(lengths)
        assert 0.45 <= longer <= 0.55, fault
        assert all(0.5 < chosen / rejected < 2 for chosen, rejected in lengths)


def test_seed_tasks_have_instances() -> None:
    found = rows("seed_tasks.jsonl")
    assert len({row["name"] for row in found}) == len(found)
    assert all(
        row["instances"] and all(one["output"].strip() for one in row["instances"]) for row in found
    )
    assert 20 <= sum(row["is_classification"] for row in found) <= 60

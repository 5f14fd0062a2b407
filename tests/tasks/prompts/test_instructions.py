"""The shipped instructions: whole, varied, none that contradicts itself, each constraint stated in
the prompt's own words, and those that measure are none that are trained on.
"""

import json
import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from dapflow.tasks.prompts.constraints import RULES, constraints_of
from dapflow.tasks.prompts.sources import SHIPPED

MEASURING, TRAINING = "instructions.jsonl", "instruction_prompts.jsonl"
NUMBERS = dict(
    enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1
    )
)
NEVER_WITH = {
    "items": "sentences numbered lines starts_with ends_with json quoted",
    "numbered": "sentences lines starts_with ends_with json quoted",
    "lines": "sentences json",
    "json": "sentences words starts_with ends_with uppercase quoted language",
    "quoted": "starts_with ends_with",
    "lowercase": "uppercase",
}
CUES = {
    "sentences": "sentence",
    "words": "word",
    "items": r"dash|- |\* ",
    "numbered": r"number|\b1\.",
    "lines": "line",
    "lowercase": r"lower ?case|no capital|without (any|a single) capital|single capital",
    "uppercase": r"upper ?case|capital|all caps",
    "quoted": "double quot",
    "json": "json",
}
"""How a prompt says it."""
MARKS = {",": "comma", "!": "exclamation mark", "?": "question mark"}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHIPPED / name).read_text("utf-8").splitlines()]


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.lower()))


@pytest.mark.parametrize(
    ("name", "of_so_many"), [(MEASURING, (90, 75, 35)), (TRAINING, (270, 225, 105))]
)
def test_there_are_enough_with_one_two_and_three_constraints_of_every_rule(
    name: str, of_so_many: tuple[int, int, int]
) -> None:
    found = rows(name)
    assert {row["prompt"] for row in found} == {row["prompt"].strip() for row in found}
    assert len({row["prompt"].lower() for row in found}) == len(found)
    counts = Counter(len(row["constraints"]) for row in found)
    assert tuple(counts[number] for number in (1, 2, 3)) == of_so_many
    rules = Counter(one["rule"] for row in found for one in row["constraints"])
    assert all(rules[rule] >= 8 for rule in RULES)


@pytest.mark.parametrize("name", [MEASURING, TRAINING])
def test_none_contradicts_itself(name: str) -> None:
    for row in rows(name):
        kept = constraints_of(row["constraints"], row["prompt"])
        by = {one["rule"]: one for one in row["constraints"]}
        assert len(by) == len(kept), row
        for rule in NEVER_WITH.keys() & by.keys():
            assert not set(NEVER_WITH[rule].split()) & by.keys(), row
        edges = [by[rule]["text"] for rule in ("starts_with", "ends_with") if rule in by]
        keys = by.get("json", {}).get("keys", [])
        needed = [*edges, *keys, *by.get("contains", {}).get("words", [])]
        banned = {word.lower() for word in by.get("excludes", {}).get("words", [])}
        assert not banned & set().union(*map(words, needed)), row
        character = by.get("without", {}).get("characters", "\0")
        assert not any(character in text.lower() for text in needed), row
        assert character != "," or "json" not in by, row
        assert "lowercase" not in by or all(text == text.lower() for text in [*edges, *keys]), row
        assert "uppercase" not in by or all(text == text.upper() for text in edges), row


@pytest.mark.parametrize("name", [MEASURING, TRAINING])
def test_the_prompt_states_each_constraint(name: str) -> None:
    for row in rows(name):
        prompt, low = row["prompt"], row["prompt"].lower()
        for one in row["constraints"]:
            assert re.search(CUES.get(one["rule"], ""), low), row
            assert all(f'"{word}"' in prompt for word in one.get("words", one.get("keys", []))), row
            for key in ("text", "characters"):
                mark = one.get(key, "")
                assert f'"{mark}"' in prompt or not mark or MARKS.get(mark, "\0") in low, row
            assert one.get("is", "") in prompt, row
            for key in {"exactly", "at_most", "at_least"} & one.keys():
                number = one[key]
                said = {str(number), NUMBERS.get(number, str(number))}
                said |= {"single"} if number == 1 else set()
                said |= {str(number + 1)} if key == "at_most" and "under" in low else set()
                assert any(re.search(rf"\b{form}\b", low) for form in said), row


def test_most_combinations_that_measure_are_none_that_are_trained_on() -> None:
    seen = {
        frozenset(some)
        for row in rows(TRAINING)
        for size in (2, 3)
        for some in combinations(sorted(one["rule"] for one in row["constraints"]), size)
    }
    asked = {frozenset(one["rule"] for one in row["constraints"]) for row in rows(MEASURING)}
    several = [rules for rules in asked if len(rules) > 1]
    assert 2 * sum(rules not in seen for rules in several) >= len(several)

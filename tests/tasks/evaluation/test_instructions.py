"""Instructions that a program verifies: what counts, which of the shipped ones are asked, and that
their figures are those of the same prompts.
"""

from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.recipes.methods import RSO
from dapflow.flows.recipes.toy import toy
from dapflow.storage import UserError
from dapflow.tasks.evaluation.instructions import (
    INSTRUCTIONS_FILE,
    figures_of,
    followed,
    placed_constraints,
    wholly,
)
from dapflow.tasks.prompts.constraints import constraints_of
from dapflow.tasks.prompts.sources import Record, read_source

CONSTRAINTS = {
    "a": constraints_of([{"rule": "lowercase"}, {"rule": "words", "exactly": 1}], "here"),
    "b": constraints_of([{"rule": "quoted"}], "here"),
}


def rows(**texts: str | None) -> list[Any]:
    return [
        {
            "prompt_id": prompt,
            "text": text or "",
            "finish_reason": "stop" if text is not None else "refused",
        }
        for prompt, text in texts.items()
    ]


def test_a_prompt_counts_by_the_share_of_its_constraints_and_as_a_whole() -> None:
    shares = followed(rows(a="two words", b='"yes"'), CONSTRAINTS)
    assert shares == {"a": 0.5, "b": 1.0}
    assert wholly(shares) == {"a": 0.0, "b": 1.0}


def test_an_empty_answer_follows_nothing_and_what_was_refused_is_no_answer() -> None:
    assert followed(rows(a="", b=None), CONSTRAINTS) == {"a": 0.0}


def test_the_change_is_over_the_prompts_that_both_have_answered() -> None:
    old = followed(rows(a="Two words", b="no"), CONSTRAINTS)
    new = followed(rows(a="one", b=None), CONSTRAINTS)
    values = {row.name: row.value for row in figures_of("instructions_followed", old, new, 0)}
    assert values == {
        "instructions_followed_before": 0.0,
        "instructions_followed_after": 1.0,
        "instructions_followed_change": 1.0,
    }


def test_a_prompt_without_constraints_is_named() -> None:
    with pytest.raises(UserError, match=r"mine.jsonl:3: there are no `constraints`, such as"):
        placed_constraints(Record(place="mine.jsonl:3", fields={"prompt": "Why?"}))


def test_a_real_run_asks_64_of_the_shipped_ones_and_a_toy_run_few() -> None:
    assert RSO.evaluation.instructions.source == "shipped"
    assert len(read_source("shipped", INSTRUCTIONS_FILE)) == 200
    assert RSO.evaluation.instructions.prompts == 64
    assert toy(RSO).evaluation.instructions.prompts == 8
    sampling = RSO.evaluation.instructions.sampling(None)
    assert (sampling.n, sampling.temperature, sampling.max_tokens) == (1, 0.0, 96)


def test_no_shipped_instruction_is_also_one_to_train_on() -> None:
    def prompts(name: str, file: str = "") -> set[str]:
        return {record.text("prompt").lower() for record in read_source(name, file)}

    trained = prompts("shipped-instructions")
    assert len(trained) == 600
    assert not prompts("shipped", INSTRUCTIONS_FILE) & trained


def test_a_file_of_ones_own_works_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "Why?", "constraints": [{"rule": "quoted"}]}\n')
    [record] = read_source(str(file), INSTRUCTIONS_FILE)
    assert placed_constraints(record) == ("mine.jsonl:1", '[{"rule":"quoted"}]')

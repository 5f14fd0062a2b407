"""Instances as steps: each task asked for in its order, its instances kept with what made them, a
task that gave none still there.
"""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from prefect import flow

from dapflow.storage import DatasetRef, Lake, UserError
from dapflow.storage.lineage import trace
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.prompts.load import SEEDS_FILE
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.self_instruct.instances import (
    Instances,
    ask_for_instances,
    ask_for_kinds,
    generate_instances,
    read_replies,
)
from dapflow.tasks.step import use_lake
from tests.helpers.lakes import ids, named, write

pytestmark = pytest.mark.usefixtures("prefect_server")
TASKS = ["Say the mood.", "Add both numbers.", "Name a fruit.", "Sing."]


def tasks(lake: Lake) -> DatasetRef:
    version = named("tasks")
    rows = pa.table(
        {"id": ids(version, len(TASKS)), "prompt": TASKS, "source": ["mine.jsonl:1"] * len(TASKS)}
    )
    return write(lake, "prompts", version, "read_prompts", rows, {})  # type: ignore[return-value]


def said(lake: Lake, name: str, prompts: DatasetRef, texts: list[str], cut: int = -1) -> DatasetRef:
    """One completion for each prompt; the one at `cut` was cut off."""
    version = named(name)
    rows = pa.table(
        {
            "id": ids(version, len(texts)), "prompt_id": [row["id"] for row in lake.rows_of(prompts)], "text": texts,
            "finish_reason": ["length" if place == cut else "stop" for place in range(len(texts))],
        }
    )  # fmt: skip
    return write(lake, "completions", version, "sample", rows, {"prompts": prompts})  # type: ignore[return-value]


def test_every_task_is_asked_for_in_its_order_and_its_instances_are_kept(lake: Lake) -> None:
    source = find_source("shipped", SEEDS_FILE)

    @flow
    def made() -> tuple[DatasetRef, DatasetRef]:
        prompts = tasks(lake)
        questions = ask_for_kinds(prompts, source.name, source.digest, 2)
        kinds = said(lake, "kinds", questions, [" Yes", "No", "No.", "Perhaps"])
        requests = ask_for_instances(prompts, kinds, questions, source.name, source.digest, 1)
        replies = said(
            lake,
            "replies",
            requests,
            [
                "Label: glad\nInput: I won!\nLabel: sad\nInput: It rains.",
                "Example 1\nInput: 1, 2\nOutput: 3\nExample 2\nInput: 4, 5\nOutput: 1",
                "?",
            ],
            cut=1,
        )
        return requests, read_replies(prompts, requests, replies, 5)

    with use_lake(lake):
        requests, instances = made()
    asked = lake.rows_of(requests)
    assert [(row["source"], row["prompt"].splitlines()[-1]) for row in asked] == [
        ("output-first", "Task: Say the mood."),
        ("input-first", "Task: Add both numbers."),
        ("input-first", "Task: Name a fruit."),
    ]
    rows = lake.rows_of(instances)
    assert [(row["prompt"], row["chosen"], row["dropped"]) for row in rows] == [
        ("Say the mood.\n\nI won!", "glad", None),
        ("Say the mood.\n\nIt rains.", "sad", None),
        ("Add both numbers.\n\n1, 2", "3", None),
        ("Add both numbers.\n\n4, 5", "1", "truncated"),
        ("Name a fruit.", None, "invalid"),
        ("Sing.", None, "invalid"),
    ]
    assert {one.role for one in trace(lake, rows[0]["id"]).up} == {"prompt", "source"}


def test_a_policy_that_says_neither_yes_nor_no_is_said_to(lake: Lake) -> None:
    @flow
    def made(settings: Instances) -> DatasetRef:
        return generate_instances(
            register_model("toy", resolve("toy").digest), tasks(lake), settings, 0, Sampler()
        )

    with (
        use_lake(lake),
        pytest.raises(UserError, match="of no task whether it is a classification"),
    ):
        made(Instances(of_each_kind=1, shown=1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instruction": "Sing."}, r"mine.jsonl:1: needs `instances`"),
        (
            {"instruction": "Sing.", "instances": [{"input": "a"}], "is_classification": False},
            r"mine.jsonl:1: needs `instances`",
        ),
        (
            {"instruction": "Sing.", "instances": [{"output": "la"}], "is_classification": False},
            "has no task that is a classification",
        ),
    ],
)
def test_examples_that_do_not_show_how_are_refused(
    lake: Lake, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(fields))
    source = find_source(str(file), SEEDS_FILE)
    with use_lake(lake), pytest.raises(UserError, match=message):
        flow(lambda: ask_for_kinds(tasks(lake), source.name, source.digest, 2))()

"""The training step and the lake: reference log-probs are computed once, and by whoever needs them
first; a plan knows the version that is made.

Run: pytest tests/tasks/training/test_train.py
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.storage.logps import KeptLogps
from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.groups import pair_groups
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.prompts.preferences import import_preferences
from dapflow.tasks.step import planning, use_lake
from dapflow.tasks.step.progress import Silent, report_to
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Training
from dapflow.tasks.training.train import train

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def imported(tmp_path: Path, lake: Lake) -> Callable[..., DatasetRef]:
    """Pairs of these numbers, the longer answer chosen unless they are turned."""

    def pairs(name: str, numbers: Sequence[int], turned: bool = False) -> DatasetRef:
        file = tmp_path / f"{name}.jsonl"
        sides = ("rejected", "chosen") if turned else ("chosen", "rejected")
        texts = [(f"Count to {n}.", (f"It is {n}.", "No.")) for n in numbers]
        rows = [{"prompt": prompt, **dict(zip(sides, two, strict=True))} for prompt, two in texts]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        made = import_preferences(lake, file)
        assert isinstance(made, DatasetRef)
        return made

    return pairs


def steps(
    pairs: list[DatasetRef],
    dtype: str = "float32",
    seed: int = 0,
    loss: str = "sigmoid_norm",
    **training: Any,
) -> ModelRef:
    policy = register_model("toy", resolve("toy").digest)
    return train(
        policy=policy,
        reference=policy,
        pairs=pairs,
        loss=Loss.of(loss),
        training=Training.model_validate({"learning_rate": 1e-4, "dtype": dtype} | training),
        system=None,
        chat_template=None,
        seed=seed,
    )


class Scored(Silent):
    """How many pairs a training has scored with its reference."""

    def __init__(self) -> None:
        self.pairs = 0

    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None:
        if unit == "reference pairs":
            self.pairs = int(total)


def scored(lake: Lake, pairs: list[DatasetRef], **options: Any) -> int:
    """How many of the pairs a training scores with its reference."""
    reporter = Scored()
    with use_lake(lake), report_to(reporter):
        flow(steps)(pairs, **options)
    return reporter.pairs


def test_an_answer_is_trained_with_the_tokens_that_were_sampled_and_one_end_if_it_finished() -> (
    None
):
    """A stop string cut the third one's text: what it said after that was not judged, and is not
    trained.
    """
    policy = load(resolve("toy").path)
    end, words = (
        policy.tokenizer.eos_token_id,
        tuple(policy.tokenizer("take the tram", add_special_tokens=False)["input_ids"]),
    )
    odd = (words[0], 300, 301)  # tokens that their own text would not give back
    sampled = {
        "v-1": {"token_ids": [*odd, end], "finish_reason": "stop"},
        "v-2": {"token_ids": [*odd], "finish_reason": "length"},
        "v-3": {"token_ids": [*words, 300], "finish_reason": "stop"},
        "v-4": {"token_ids": [], "finish_reason": "stop"},
    }
    row = {
        "id": "p",
        "prompt": "How?",
        "chosen": "take the tram",
        "rejected": "take the tram",
        "probability": None,
    }
    pairs = [
        row | {"chosen_id": "v-1", "rejected_id": "v-2"},
        row | {"chosen_id": "v-3", "rejected_id": "v-4"},
    ]
    first, second = pair_groups(policy, pairs, sampled, None)
    assert first.answers == ((*odd, end), odd)
    assert second.answers == ((*words, end), (*words, end))
    [alone] = pair_groups(
        policy, [row | {"rejected": None, "chosen_id": None, "rejected_id": None}], sampled, None
    )
    assert alone.answers == ((*words, end),)


def test_ten_new_rows_cost_ten_forwards(lake: Lake, imported: Callable[..., DatasetRef]) -> None:
    first, more = imported("first", range(20)), imported("more", range(20, 30))
    assert scored(lake, [first]) == 20
    assert scored(lake, [first], seed=1) == 0
    assert scored(lake, [first, more]) == 10
    assert scored(lake, [more], dtype="bfloat16") == 10  # other numbers


def test_the_same_answers_from_other_rows_are_the_same(
    lake: Lake, imported: Callable[..., DatasetRef]
) -> None:
    first, twins = imported("first", range(5)), imported("twins", range(5))
    assert first != twins
    assert scored(lake, [first, twins]) == 5
    assert scored(lake, [imported("turned", range(5), turned=True)]) == 5


def test_a_training_has_the_version_that_was_planned(
    lake: Lake, imported: Callable[..., DatasetRef]
) -> None:
    pairs = imported("pairs", range(5))
    with planning() as calls:
        planned = steps([pairs])
    with use_lake(lake):
        assert flow(steps)([pairs]).version == planned.version
    loss = calls[-1].arguments["loss"]
    assert calls[-1].parameters["loss"] == loss.model_dump() | loss.content()


def test_what_was_kept_before_a_kill_is_there_and_twice_is_once(lake: Lake) -> None:
    kept = KeptLogps(lake, "weights", "float32")
    kept.keep({"a": (-1.0, -2.0)})
    kept.keep({"a": (-1.0, -2.0), "b": (-3.0,)})
    with Lake(lake.root) as later:
        assert KeptLogps(later, "weights", "float32").find(["a", "b", "c"]) == {
            "a": (-1.0, -2.0),
            "b": (-3.0,),
        }
        assert KeptLogps(later, "others", "float32").find(["a"]) == {}


class Told(Silent):
    """The sentences of a run."""

    def __init__(self) -> None:
        self.sentences = list[str]()

    def said(self, sentence: str) -> None:
        self.sentences.append(sentence)


STOPPING = {
    "learning_rate": 1e-2,
    "batch_size": 4,
    "epochs": 4,
    "stop": {"log_ratio": 1e-3, "every": 2, "set_aside": 4},
}


def test_a_training_that_stops_says_so_once_and_the_lake_knows_where_and_why(
    lake: Lake, imported: Callable[..., DatasetRef]
) -> None:
    """A loss without a reference, so only what is set aside is scored with it."""
    pairs, told = [imported("pairs", range(16))], Told()
    with use_lake(lake), report_to(told):
        made = flow(steps)(pairs, loss="hinge", **STOPPING)
        again = flow(steps)(pairs, loss="hinge", **STOPPING)
    assert again == made
    row = lake.model(made)
    recipe = json.loads(row["recipe"])
    step, reason = recipe["stopped"]["step"], recipe["stopped"]["reason"]
    assert step < 12 and (recipe["pairs"], recipe["steps"]) == (12, step)
    assert reason.startswith("answers set aside have lost ")
    assert row["reference"] is not None
    assert [each for each in told.sentences if "stopped" in each] == [
        f"stopped after step {step}: {reason}"
    ]
    figures = {
        (metric["name"], metric["step"]): metric["value"]
        for metric in lake.rows("SELECT * FROM metrics WHERE version = ?", [made.version])
    }
    assert figures["stopped_after", None] == step
    assert figures["set_aside_rows", None] == 4
    assert figures["set_aside_log_ratio", step - 1] < -1e-3
    assert ("picked_after", None) not in figures


def test_the_best_weights_are_published_and_the_lake_knows_their_step(
    lake: Lake, imported: Callable[..., DatasetRef]
) -> None:
    pairs, told = [imported("pairs", range(16))], Told()
    rule = {"stop": {"every": 2, "set_aside": 4}, "pick": "best"}
    with use_lake(lake), report_to(told):
        made = flow(steps)(pairs, **STOPPING | rule)
    recipe = json.loads(lake.model(made)["recipe"])
    assert recipe["picked"] == recipe["steps"] <= 12
    assert f"the weights after step {recipe['picked']} of 12 were the best" in told.sentences

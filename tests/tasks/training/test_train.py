"""The training step's dealings with the lake: reference log-probs are computed once, and by whoever
needs them first.
"""

from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pyarrow as pa
import pytest
import torch

from dapflow.storage import Lake, ModelRef
from dapflow.storage.logps import KeptLogps
from dapflow.tasks.models.names import Loaded, load, resolve
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.groups import pair_groups
from dapflow.tasks.step import Out
from dapflow.tasks.training import train
from tests.helpers.lakes import ids, named, write
from tests.tasks.training.toys import toy_groups, toy_model


@pytest.fixture
def reference(lake: Lake) -> ModelRef:
    version = named("reference")
    made = write(
        lake,
        "models",
        version,
        "train",
        pa.table({"id": ids(version, 1), "role": ["policy"], "digest": ["weights"]}),
        {},
    )
    assert isinstance(made, ModelRef)
    return made


def with_reference(
    lake: Lake, reference: ModelRef, groups: list[Group], dtype: torch.dtype = torch.float32
) -> tuple[list[Group], int]:
    """The groups with reference log-probs, and how many were scored for it."""
    out, scored = SimpleNamespace(lake=lake, progress=mock.Mock()), list[Group]()

    def load(*_: Any) -> Loaded:
        return Loaded(model=toy_model(), tokenizer=None)

    def count(model: Any, some: list[Group]) -> Any:
        scored.extend(some)
        return original(model, some)

    original = train.reference_logps
    with (
        mock.patch.object(train, "load_policy", load),
        mock.patch.object(train, "reference_logps", count),
    ):
        found = train._with_reference(cast("Out", out), reference, groups, dtype)
    return found, len(scored)


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


def test_ten_new_rows_cost_ten_forwards(lake: Lake, reference: ModelRef) -> None:
    groups = toy_groups(30)
    first, cost = with_reference(lake, reference, groups[:20])
    assert cost == 20
    again, cost = with_reference(lake, reference, groups[:20])
    assert (again, cost) == (first, 0)
    all_of_them, cost = with_reference(lake, reference, groups)
    assert (all_of_them[:20], cost) == (first, 10)
    assert all(len(group.reference or ()) == 2 for group in all_of_them)
    _, cost = with_reference(lake, reference, groups[:3], torch.bfloat16)  # other numbers
    assert cost == 3


def test_the_same_answers_from_other_rows_are_the_same(lake: Lake, reference: ModelRef) -> None:
    [group] = toy_groups(1)
    twins = [Group(prompt=group.prompt, answers=group.answers, row_ids=(name,)) for name in "abc"]
    found, cost = with_reference(lake, reference, twins)
    assert cost == 1
    assert len({one.reference for one in found}) == 1
    turned = Group(prompt=group.prompt, answers=group.answers[::-1], row_ids=("d",))
    assert with_reference(lake, reference, [turned])[1] == 1


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

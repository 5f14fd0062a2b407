"""How old samples are is counted along the line of policies, and what is too old stops the run."""

import json

import pyarrow as pa
import pytest

from dapflow.storage import Lake, ModelRef, UserError
from dapflow.tasks.training.rounds.freshness import oldest, require_fresh
from tests.helpers.lakes import ids, named, write


@pytest.fixture
def line(lake: Lake) -> list[ModelRef]:
    """Three policies, each trained from the one before, in 5 and in 7 steps."""
    refs = list[ModelRef]()
    for name, parent, steps in (
        ("initial", None, None),
        ("first", "initial", 5),
        ("second", "first", 7),
    ):
        version = named(name)
        row = {
            "id": ids(version, 1), "role": ["policy"], "digest": [name], "parent": [named(parent) if parent else None],
            "recipe": [json.dumps({"steps": steps}) if steps else None],
        }  # fmt: skip
        made = write(lake, "models", version, "train", pa.table(row), {})
        assert isinstance(made, ModelRef)
        refs.append(made)
    return refs


def test_steps_since_the_weights_that_sampled_add_up(lake: Lake, line: list[ModelRef]) -> None:
    initial, first, second = line
    assert (
        oldest(lake, second, [second.version], steps=1) == 0
    )  # on-policy: one step on what it has just sampled
    assert oldest(lake, second, [second.version], steps=4) == 3
    assert oldest(lake, second, [second.version, first.version], steps=1) == 7
    assert oldest(lake, second, [initial.version, second.version], steps=3) == 7 + 5 + 2
    assert (
        oldest(lake, first, [second.version, initial.version], steps=1) == 7
    )  # a method that begins again from earlier weights
    assert oldest(lake, second, [second.version, None], steps=1) is None
    assert oldest(lake, second, [named("an endpoint")], steps=1) is None


def test_what_is_too_old_is_refused() -> None:
    require_fresh(None, None)
    require_fresh(11, None)
    require_fresh(11, 11)
    with pytest.raises(UserError, match=r"max_lag=10 allows .* the oldest would be 11 old"):
        require_fresh(11, 10)
    with pytest.raises(UserError, match="were not sampled by this policy"):
        require_fresh(None, 10)

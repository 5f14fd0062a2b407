"""Self-Instruct as steps on a real toy policy: resumed to the same rows, traced to what was shown,
nothing of the held-out prompts.
"""

from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from dapflow.storage import DatasetRef, Lake, UserError
from dapflow.storage.lineage import trace
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.prompts.load import PROMPTS_FILE, load_prompts
from dapflow.tasks.prompts.overlap import Pool
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.engines.transformers import TransformersEngine
from dapflow.tasks.self_instruct.settings import SelfInstruct
from dapflow.tasks.self_instruct.steps import Known, self_instruct
from dapflow.tasks.step import use_lake

pytestmark = pytest.mark.usefixtures("prefect_server")
SETTINGS = SelfInstruct(
    from_seeds=2,
    from_machine=1,
    per_round=4,
    sampling=Sampling(n=2, temperature=1.0, max_tokens=24),
)


@flow
def generate(settings: SelfInstruct, count: int, iterations: int = 1) -> list[DatasetRef]:
    source = find_source("shipped", PROMPTS_FILE)
    seeds, held_out = (
        load_prompts(source.name, source.digest, split, 64) for split in ("train", "held_out")
    )  # pyright: ignore
    policy, made = register_model("toy", resolve("toy").digest), list[DatasetRef]()
    for number in range(iterations):
        made.append(
            self_instruct(
                policy,
                Known(seeds=seeds, held_out=(held_out,), earlier=tuple(made)),
                settings,
                count,
                number,
                Sampler(),
            )
        )
    return made


def test_new_prompts_are_new_and_traced_to_what_was_shown(lake: Lake) -> None:
    with use_lake(lake):
        first, second = generate(SETTINGS, 9, iterations=2)
        assert [ref.version for ref in generate(SETTINGS, 9, iterations=2)] == [
            first.version,
            second.version,
        ]
    rows = lake.rows_of(first) + lake.rows_of(second)
    assert len(rows) == 18
    held_out = Pool(
        row["prompt"] for row in lake.rows("SELECT prompt FROM prompts WHERE split = 'held_out'")
    )
    assert len(held_out) == 64
    seen = Pool(
        row["prompt"]
        for row in lake.rows(
            "SELECT p.prompt FROM prompts p JOIN versions USING (version) WHERE step = 'load_prompts'"
        )
    )
    for row in rows:
        assert (held_out.closest(row["prompt"]), seen.closest(row["prompt"])) == (None, None)
        seen.add(row["prompt"])
    ids = [row["id"] for row in rows]
    for place, row in enumerate(rows):
        own = [parent for parent in row["parents"] if parent in ids]
        assert len(row["parents"]) == len(set(row["parents"])) == 3
        assert all(ids.index(parent) < place for parent in own)
        [reply] = lake.rows("SELECT * FROM completions WHERE id = ?", [row["source"]])
        assert row["prompt"][1:] in " ".join(reply["text"].split())
    assert any(parent in ids for row in rows for parent in row["parents"])
    node = trace(lake, rows[-1]["id"])
    assert {one.role for one in node.up} == {"parents", "source"}
    assert [one.kind for reply in node.up if reply.role == "source" for one in reply.up] == [
        "models"
    ]
    figures = lake.rows_of(first, "metrics")
    assert {"made": 9.0, "seeds_hidden": 0.0}.items() <= {
        row["name"]: row["value"] for row in figures if row["step"] is None
    }.items()
    assert any(row["name"] == "too_short" and row["step"] == 0 for row in figures)


def test_a_killed_run_asks_only_for_what_is_missing_and_ends_with_the_same(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with use_lake(lake):
        [whole] = generate(SETTINGS, 12)
    asked: list[int] = []
    generated = TransformersEngine.generate

    def dying(self: TransformersEngine, *arguments: Any, **others: Any) -> Any:
        asked.append(1)
        if len(asked) == 2:
            raise RuntimeError("killed")
        return generated(self, *arguments, **others)

    monkeypatch.setattr(TransformersEngine, "generate", dying)
    with Lake(tmp_path / "other") as other, use_lake(other):
        with pytest.raises(RuntimeError, match="killed"):
            generate(SETTINGS, 12)
        [resumed] = generate(SETTINGS, 12)
        columns = ("id", "prompt", "source", "parents")
        assert [[row[name] for name in columns] for row in other.rows_of(resumed)] == [
            [row[name] for name in columns] for row in lake.rows_of(whole)
        ]
        [count] = other.rows("SELECT count(*) AS replies FROM completions")
        assert (
            len(asked) == count["replies"] // 8 + 1
        )  # a round is 4 contexts x 2 replies; the one that died is asked for once more
        assert count["replies"] > 8


def test_a_policy_that_has_nothing_new_to_give_is_said_to_have_not(lake: Lake) -> None:
    brief = SETTINGS.model_copy(update={"sampling": Sampling(n=1, max_tokens=1), "patience": 1})
    with use_lake(lake), pytest.raises(UserError, match=r"no new prompt \(left out: .*truncated"):
        generate(brief, 4)

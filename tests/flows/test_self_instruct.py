"""`prompts.schedule=self-instruct`: each iteration trains on prompts that the initial policy has
made for it.
"""

import json
from pathlib import Path

import pytest
from prefect import flow

from dapflow.flows.prompting import prompts_of
from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.methods import recipe_named
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.recipes.toy import toy
from dapflow.flows.standing import Standing
from dapflow.storage import DatasetRef, Lake, UserError
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.step import planning, use_lake

SETTINGS = ["prompts.schedule=self-instruct", "prompts.per_iteration=4", "prompts.held_out=6"]


@flow(validate_parameters=False)
def prompted(recipe: Recipe, iterations: int) -> list[tuple[DatasetRef, DatasetRef]]:
    """The prompts of each iteration, and the held-out ones."""
    initial = register_model(recipe.policy, resolve(recipe.policy).digest)
    given = [
        prompts_of(Standing(recipe=recipe, iteration=number, policy=initial, initial=initial))
        for number in range(1, iterations + 1)
    ]
    return [(prompts.prompts, prompts.held_out) for prompts in given]


@pytest.mark.usefixtures("prefect_server")
def test_every_iteration_gets_prompts_of_its_own_by_the_initial_policy_and_the_plan_knows_them(
    lake: Lake,
) -> None:
    recipe = change(toy(recipe_named("rso")), SETTINGS)
    with use_lake(lake):
        (first, aside), (second, _) = prompted(recipe, 2)
        with planning() as calls:
            prompted.fn(recipe, 2)
    rows = lake.rows_of(first) + lake.rows_of(second)
    assert (
        len({row["prompt"] for row in rows} | {row["prompt"] for row in lake.rows_of(aside)})
        == 8 + 6
    )
    assert {row["split"] for row in rows} == {"train"}
    asked = lake.rows(
        "SELECT DISTINCT name FROM completions c JOIN models m ON c.policy = m.version"
    )
    assert asked == [{"name": "toy"}]
    assert {call.version for call in calls} == {
        row["version"] for row in lake.rows("SELECT version FROM versions")
    }


@pytest.mark.usefixtures("prefect_server")
def test_seeds_of_ones_own_are_shown_instead_of_the_training_prompts(
    lake: Lake, tmp_path: Path
) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(
        "\n".join(
            json.dumps({"prompt": f"Tell me a thing about the number {n}."}) for n in range(5)
        )
    )
    with use_lake(lake):
        [(made, _)] = prompted(
            change(toy(recipe_named("rso")), [*SETTINGS, f"prompts.generate.seeds={seeds}"]), 1
        )
        with pytest.raises(UserError, match=r"There is no file nowhere\.jsonl"):
            prompted(
                change(
                    toy(recipe_named("rso")), [*SETTINGS, "prompts.generate.seeds=nowhere.jsonl"]
                ),
                1,
            )
    rows = lake.rows_of(made)
    shown = {parent for row in rows for parent in row["parents"]} - {row["id"] for row in rows}
    texts = [
        row["prompt"] for row in lake.rows("SELECT id, prompt FROM prompts") if row["id"] in shown
    ]
    assert texts
    assert all("about the number" in text for text in texts)


def test_shipped_seeds_are_the_seed_tasks() -> None:
    recipe = change(toy(recipe_named("rso")), [*SETTINGS, "prompts.generate.seeds=shipped"])
    with planning() as calls:
        prompted.fn(recipe, 1)
    [seeds] = [call for call in calls if call.parameters.get("shipped") == "seed_tasks.jsonl"]
    assert seeds.parameters["held_out"] == 0

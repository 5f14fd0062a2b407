"""`prompts.schedule=self-instruct`: each iteration trains on prompts that the initial policy has made for it."""

import json
from pathlib import Path

import pytest

from storage import Lake
from tests.flows.test_run import SMALL, dapflow

SETTINGS = (*SMALL, "--set", "prompts.schedule=self-instruct")


@pytest.mark.usefixtures("prefect_server")
def test_every_iteration_trains_on_prompts_made_for_it_by_the_initial_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sft-sample-rank", "--toy", "--json", "--lake", str(tmp_path / "lake"), "--iterations", "2", *SETTINGS)
    code, out, err = dapflow("run", *command, capsys=capsys)
    assert code == 0, err
    steps = json.loads(out.splitlines()[-1])["steps"]
    with Lake(tmp_path / "lake") as lake:
        made = lake.rows("SELECT p.* FROM prompts p JOIN versions USING (version) WHERE step = 'read_prompts'")
        assert len(made) == len({row["prompt"] for row in made}) == 8
        assert {row["split"] for row in made} == {"train"}
        answered = lake.rows(
            "SELECT DISTINCT c.prompt_id FROM completions c JOIN versions USING (version) JOIN prompts p ON p.id = c.prompt_id"
            " WHERE step = 'sample' AND p.split = 'train'"
        )
        assert {row["prompt_id"] for row in answered} == {row["id"] for row in made}
        [initial] = lake.rows("SELECT version FROM models WHERE name = 'toy'")
        asked = lake.rows("SELECT DISTINCT c.policy FROM completions c JOIN versions USING (version) WHERE step = 'ask_for_prompts'")
        assert asked == [{"policy": initial["version"]}]
    code, out, _ = dapflow("plan", *command, capsys=capsys)
    planned = json.loads(out)["steps"]
    assert code == 0
    assert all(step["cached"] for step in planned)  # the plan names the versions that the run has made
    assert {step["version"].split("@")[1] for step in planned} == {step["version"] for step in steps}


@pytest.mark.usefixtures("prefect_server")
def test_seeds_of_ones_own_are_shown_instead_of_the_training_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("\n".join(json.dumps({"prompt": f"Tell me a thing about the number {n}."}) for n in range(5)))
    command = ("run", "sft-sample-rank", "--toy", "--json", "--lake", str(tmp_path / "lake"), *SETTINGS)
    code, _, err = dapflow(*command, "--set", f"prompts.generate.seeds={seeds}", capsys=capsys)
    assert code == 0, err
    with Lake(tmp_path / "lake") as lake:
        made = lake.rows("SELECT p.parents, p.id FROM prompts p JOIN versions USING (version) WHERE step = 'read_prompts'")
        shown = {parent for row in made for parent in row["parents"]} - {row["id"] for row in made}
        texts = [row["prompt"] for row in lake.rows("SELECT id, prompt FROM prompts") if row["id"] in shown]
        assert texts
        assert all("about the number" in text for text in texts)
    code, _, err = dapflow(*command, "--set", "prompts.generate.seeds=nowhere.jsonl", capsys=capsys)
    assert code == 2
    assert "There is no file nowhere.jsonl" in err

"""`dapflow run`: every recipe end to end on the toy model under a real Prefect server, twice; and
what a user can get wrong.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.storage import Lake
from tests.helpers.toy import BY_LENGTH, QUICK, SMALL, dapflow, words


def test_a_recipe_runs_and_the_second_time_all_is_cached(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:  # others: test_methods
    lake, first = finished
    command = ("run", "rso", "--toy", "--json", "--lake", str(lake), *words(*SMALL))
    code, out, err = dapflow(*command, capsys=capsys)
    assert code == 0, err
    second = json.loads(out.splitlines()[-1])
    assert [step["version"] for step in first["steps"]] == [
        step["version"] for step in second["steps"]
    ]
    assert {step["state"] for step in second["steps"]} == {"cached"}
    assert first["iterations"] == second["iterations"]
    [iteration] = first["iterations"]
    assert (
        0 <= iteration["win_rate_low"] <= iteration["win_rate"] <= iteration["win_rate_high"] <= 1
    )
    wanted = {
        "policy",
        "reward_before",
        "reward_after",
        "length_before",
        "length_after",
        "pairs",
        "dropped",
    }
    assert wanted <= iteration.keys()
    assert (first["recipe"], first["lake"]) == ("rso", str(lake))
    assert set(first["steps"][0]) == {"name", "version", "state", "rows", "seconds"}


@pytest.mark.usefixtures("prefect_server")
def test_a_pairwise_ranker_judges_against_one_answer_of_the_initial_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranker = [
        f"reward.{key}"
        for key in ("form=pairwise", "parameters=lora", "layers=0", "learning_rate=0.01")
    ]
    settings = words(*ranker)
    code, out, err = dapflow(
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*QUICK),
        *settings,
        capsys=capsys,
    )
    assert code == 0, err
    titles = [step["name"] for step in json.loads(out.splitlines()[-1])["steps"]]
    assert any(title.startswith("sample 4 x 1 ") for title in titles)  # the baselines
    with Lake(tmp_path / "lake") as lake:
        [model] = lake.rows("SELECT * FROM models WHERE role = 'ranker'")
        metrics = {
            row["name"]: row
            for row in lake.rows(
                "SELECT * FROM metrics WHERE version = ? AND subject = version", [model["version"]]
            )
        }
        assert metrics.keys() == {
            "held_out_accuracy",
            "longer_is_better_accuracy",
            "calibration_error",
            "calibration_slope",
            "position_consistency",
        }
        assert (
            0
            <= metrics["position_consistency"]["low"]
            < metrics["position_consistency"]["high"]
            <= 1
        )
        verdicts = lake.rows(
            "SELECT * FROM verdicts WHERE judge = ? AND other_id IS NULL", [model["version"]]
        )
        assert {row["outcome"] for row in verdicts} <= {"scored", "invalid"}
        scores = {row["score"] for row in verdicts if row["outcome"] == "scored"}
        assert len(scores) > 4
        assert all(abs(score) < 14 for score in scores)
        labels = lake.rows(  # of the accepted: what the ranker said of the two
            "SELECT p.*, v.score AS first_wins, v.completion_id AS first, v.forward, v.backward FROM pairs p JOIN verdicts v"
            " ON v.judge = ? AND list_sort([v.completion_id, v.other_id]) = list_sort([p.chosen_id, p.rejected_id])",
            [model["version"]],
        )
    kept = [row for row in labels if row["dropped"] is None]
    assert kept
    for row in kept:
        assert row["first_wins"] == pytest.approx((row["forward"] + 1 - row["backward"]) / 2)
        assert row["probability"] == pytest.approx(max(row["first_wins"], 1 - row["first_wins"]))
        assert (row["chosen_id"] == row["first"]) == (row["first_wins"] > 0.5)


@pytest.mark.usefixtures("prefect_server")
def test_a_sweep_chooses_the_temperature_and_too_old_samples_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*BY_LENGTH, "sweep.temperatures=[0.5, 1.5]"),
    )
    code, out, err = dapflow(
        *command, "--set", "training.batch_size=1", "--set", "training.max_lag=0", capsys=capsys
    )
    assert code == 2
    assert (
        "training.max_lag=0 allows samples that are 0 optimiser steps old, but the oldest would be"
        in err
    )
    code, out, err = dapflow(*command, "--set", "training.max_lag=0", capsys=capsys)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["iterations"][0]["max_lag"] == 0
    with Lake(tmp_path / "lake") as lake:
        version = next(
            step["version"] for step in result["steps"] if step["name"].startswith("choose one of")
        )
        figures = {
            row["name"]: row["value"]
            for row in lake.rows("SELECT * FROM metrics WHERE version = ?", [version])
        }
        rewards = {0.5: figures["best_of_n_reward at 0.5"], 1.5: figures["best_of_n_reward at 1.5"]}
        assert figures["temperature"] == max(rewards, key=lambda temperature: rewards[temperature])
        [child] = lake.rows("SELECT child FROM edges WHERE parent = ?", [version])
        assert lake.find(child["child"]).kind == "completions"  # type: ignore[union-attr]


@pytest.mark.usefixtures("prefect_server")
def test_a_second_iteration_goes_on_top_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*BY_LENGTH, "evaluation.probes=6")
    command = ("run", "rso", "--toy", "--json", "--lake", str(tmp_path / "lake"), *words(*settings))
    code, out, _ = dapflow(*command, "--iterations", "2", capsys=capsys)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    one, two = result["iterations"]
    assert two["policy"] != one["policy"]
    lake = Lake(tmp_path / "lake")
    edges = lake.rows("SELECT parent, role FROM edges WHERE child = ?", [two["policy"]])
    assert {"parent": one["policy"], "role": "policy"} in edges  # trained from the policy before
    initial = next(step["version"] for step in result["steps"] if step["name"] == "policy toy")
    assert {"parent": initial, "role": "reference"} in edges  # against the initial one
    # The prompts are the next ones, and the old policy's held-out answers are not sampled again.
    prompts = lake.rows("SELECT DISTINCT version, prompt FROM prompts WHERE split = 'train'")
    assert len(prompts) == len({row["prompt"] for row in prompts}) == 8
    sampled = [
        step for step in result["steps"] if step["name"] == f"sample 6 x 1 from {one['policy'][:8]}"
    ]  # as the new policy, at temperature 1, and as the old policy
    assert [step["state"] for step in sampled] == ["run", "run", "cached"]
    assert sampled[2]["version"] == sampled[0]["version"]
    versus = {row["name"]: row["value"] for row in two["metrics"]}
    assert versus["win_rate_vs_initial"] is not None
    assert versus["kl_to_initial"] > 0
    lake.close()
    _, out, _ = dapflow(*command, capsys=capsys)
    assert json.loads(out.splitlines()[-1])["iterations"] == [one]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "rs0"], "no recipe `rs0`"),
        (["run", "rso", "--set", "sampling.temprature=1"], "did you mean `sampling.temperature`?"),
        (
            ["run", "rso", "--set", "sampling.temperature=-1"],
            "`sampling.temperature` must be greater than or equal to 0",
        ),
        (["run", "rso", "--iterations", "0"], "Must be >= 1"),
        (
            ["run", "rso", "--toy", "--set", "policy=no-such-model"],
            "There is no model `no-such-model`",
        ),
        (
            ["run", "rso", "--toy", "--set", "prompts.source=nowhere.jsonl"],
            "There is no file nowhere.jsonl",
        ),
        (
            ["plan", "rso", "--toy", "--set", "prompts.source=nowhere.jsonl"],
            "There is no file nowhere.jsonl",
        ),
        (["recipes", "rs0"], "no recipe `rs0`"),
        (["run", "rso", "--iteratons", "2"], "--iteratons"),
        (["run", "rso", "--iterations", "two"], "two"),
    ],
)
@pytest.mark.usefixtures("prefect_server")
def test_what_a_user_can_put_right_is_one_sentence_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = [] if arguments[0] == "recipes" else ["--lake", str(tmp_path / "lake")]
    code, _, err = dapflow(*arguments, *lake, capsys=capsys)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("dapflow: ")


@pytest.mark.usefixtures("prefect_server")
def test_a_malformed_line_is_named_and_the_next_run_goes_on_and_refuses_and_counts_a_prompt_longer_than_the_context(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    prompts = [f"Tell me about the number {n}." for n in range(12)] + ["word " * 2000]
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    file.write_text("\n".join([*lines[:6], '{"prompt": "unfinished', *lines[6:]]))
    sizes = ("prompts.per_iteration=9", "prompts.held_out=4")
    command = (
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*BY_LENGTH, *sizes, f"prompts.source={file}"),
    )
    code, _, err = dapflow(*command, capsys=capsys)
    assert (code, "mine.jsonl:7: not valid JSON" in err) == (2, True)
    file.write_text("\n".join(lines))
    code, out, err = dapflow(*command, capsys=capsys)
    assert code == 0, err
    [one] = json.loads(out.splitlines()[-1])["iterations"]
    assert (one["held_out_prompts"], one["dropped"]["refused"]) == (4, 3)
    lake = Lake(tmp_path / "lake")
    notes = {
        row["note"]
        for row in lake.rows("SELECT note FROM completions WHERE finish_reason = 'refused'")
    }
    assert len(notes) == 1
    assert "do not fit the context of 512" in notes.pop()
    lake.close()


def test_a_plan_runs_nothing_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dapflow(
        "plan",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*SMALL),
        capsys=capsys,
    )
    assert code == 0
    plan = json.loads(out)
    assert (
        plan["tokens"]["sampled"] == 4 * 3 * 6 + 3 * 6 * 12 + 2 * (40 + 8) * 12
    )  # candidates; answers of two policies, and of one at temperature 1; tasks
    assert plan["judge_calls"] == 4 * 3 + 4 * 6
    assert not (tmp_path / "lake").exists()

"""PPO through the whole flow on the toy model: it raises what a program rewards, and killed with
kill -9 it ends with the same weights.

Run: pytest tests/flows/test_ppo.py, and with -m methods for the one that is killed.
"""

import os
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import pytest

from dapflow.flows.align import align
from dapflow.storage import Lake

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]
TWO_WORDS = "def two_words(prompt, completion):\n    return -abs(len(completion.split()) - 2.0)\n"


def judges(folder: Path) -> list[str]:
    """Settings: a program likes two words, and measures how near they are. (Of a toy that is to be
    short nothing is left to judge.)
    """
    (folder / "two_words.py").write_text(TWO_WORDS)
    return [f"{role}={folder / 'two_words.py'}:two_words" for role in ("judge", "evaluation.judge")]


@pytest.mark.slow
def test_ppo_raises_the_reward_of_a_program(tmp_path: Path) -> None:
    settings = [
        "rounds.count=20",
        "rounds.prompts=12",
        "rounds.minibatches=2",
        "rounds.epochs=2",
        "training.learning_rate=1e-3",
    ]
    settings += [
        "evaluation.sampling.n=4",
        "evaluation.sampling.temperature=1",
        "evaluation.sampling.top_k=0",
        *judges(tmp_path),
    ]
    [one] = align("rlhf", 1, settings, True, str(tmp_path / "lake"))["iterations"]
    gain = {row["name"]: row for row in one["metrics"]}["judge_reward_gain"]
    assert gain["low"] > 0, (
        gain
    )  # words nearer to two, sampled as in training; the lower end of its 95 % interval
    with Lake(tmp_path / "lake") as lake:
        rows = lake.rows(
            "SELECT name, value FROM metrics WHERE version = ? AND step IS NOT NULL ORDER BY step",
            [one["policy"]],
        )
    rewards = [row["value"] for row in rows if row["name"] == "reward"]
    assert len(rewards) == 20 * 4
    assert sum(rewards[-20:]) > sum(rewards[:20])


@pytest.mark.methods
def test_a_killed_run_of_ppo_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    few = [
        "prompts.held_out=6",
        "evaluation.probes=0",
        "rounds.count=10",
        "rounds.minibatches=2",
        "training.checkpoint_every_steps=1",
    ]
    few += judges(tmp_path)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [
        sys.executable,
        "-m",
        "dapflow.flows.cli.main",
        "run",
        "rlhf",
        "--toy",
        "--json",
        "--lake",
        str(killed),
    ]
    command += [word for setting in few for word in ("--set", setting)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT")
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
    until = time.monotonic() + 600
    while (
        not glob(f"{killed}/checkpoints/*/step-*/state.json")
        and process.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    results = [align("rlhf", 1, few, True, str(lake))["iterations"][0] for lake in (killed, whole)]
    assert results[0]["policy"] == results[1]["policy"]
    kept: list[list[dict[str, object]]] = []
    for address in (killed, whole):
        with Lake(address) as lake:
            timed = "('tokens_per_second', 'peak_memory_gib', 'models_in_memory', 'model_bytes')"
            policy, query = (
                results[0]["policy"],
                f"SELECT * FROM metrics WHERE version = ? AND name NOT IN {timed} ORDER BY step, name",
            )
            kept.append(
                [
                    *lake.rows("SELECT digest FROM models WHERE version = ?", [policy]),
                    *lake.rows(query, [policy]),
                ]
            )
    assert kept[0] == kept[1]
    assert len(kept[0]) > 20

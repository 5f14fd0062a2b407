"""`dapflow metrics`, and what a real run leaves for those who watch it: logs, a tracker's curves,
metrics.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dapflow.storage import Lake, logs
from dapflow.storage.ledger import Cost, Ledger
from tests.helpers.evaluated import run
from tests.helpers.toy import BY_LENGTH, dapflow, words

Samples = dict[tuple[str, ...], float]


def read(text: str) -> dict[str, Samples]:
    """Every metric: its values by its labels, in the order of the labels' names."""
    families = list(text_string_to_metric_families(text))
    return {
        family.name: {
            tuple(value for _, value in sorted(one.labels.items())): one.value
            for one in family.samples
            if "_created" not in one.name
        }
        for family in families
    }


def test_counts_are_those_of_the_lake(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    run(lake, "better", number=1, prompts=40, wins=0.75)
    with Ledger(
        lake, lake.rows("SELECT version FROM versions WHERE step = 'judge'")[0]["version"]
    ) as ledger:
        for number, error in enumerate((None, None, "HTTP 500")):
            call = ledger.sent(f"k{number}", "gpt", {}, 1, Cost(tokens_in=9, tokens_out=9, usd=0.9))
            ledger.ended(
                call,
                "A" if error is None else None,
                error,
                Cost(tokens_in=100, tokens_out=2, usd=0.25),
                0.1,
            )
    lake.close()
    code, out, err = dapflow("metrics", "--lake", str(lake.root), capsys=capsys)
    assert code == 0, err
    found = read(out)
    assert found["dapflow_runs"] == {("rso", "done"): 1}
    assert found["dapflow_figure"]["win_rate", "rso"] == 0.75
    # 4 prompts x 4 completions of 3 tokens (tests/helpers/lakes.py), and 40 answers of 5 tokens of
    # each side
    assert sum(found["dapflow_sampled_tokens"].values()) == 4 * 4 * 3 + 2 * 40 * 5
    assert found["dapflow_judge_calls"] == {
        ("judging", "gpt", "answered", "", "judge"): 2,
        ("judging", "gpt", "failed", "", "judge"): 1,
    }
    assert found["dapflow_judge_tokens"] == {
        ("judging", "in", "gpt", "", "judge"): 300,
        ("judging", "out", "gpt", "", "judge"): 6,
    }
    assert found["dapflow_judge_usd"] == {("judging", "gpt", "", "judge"): 0.75}
    assert found["dapflow_lake_bytes"][("completions",)] > 0


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server")
def test_a_run_can_be_followed_from_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPFLOW_LOG", str(tmp_path / "log.jsonl"))
    monkeypatch.setenv("DAPFLOW_TRACKER", "tensorboard")
    command = (
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*BY_LENGTH),
    )
    for _ in range(2):
        code, out, err = dapflow(*command, capsys=capsys)
        assert code == 0, err
    logs._set_up.cache_clear()
    steps = json.loads(out.splitlines()[-1])["steps"]
    policy = json.loads(out.splitlines()[-1])["iterations"][0]["policy"]

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, second = dict.fromkeys(line["run"] for line in lines)
    ended = [line for line in lines if line["event"] in ("step.done", "step.cached")]
    assert {line["version"] for line in ended if line["run"] == first} == {
        step["version"] for step in steps
    }
    assert {line["event"] for line in ended if line["run"] == second} == {"step.cached"}
    assert all(line["task_run"] and line["flow_run"] for line in ended)
    assert [line["event"] for line in lines if line["event"].startswith("run.")] == [
        "run.started",
        "run.done",
    ] * 2

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(tmp_path / "lake" / "tensorboard" / policy)).Reload()
    with Lake(tmp_path / "lake", read_only=True) as lake:
        losses = lake.rows(
            "SELECT step, value FROM metrics WHERE subject = ? AND name = 'loss' ORDER BY step",
            [policy],
        )
        made = lake.rows(
            "SELECT count(*) AS n, sum(rows) AS rows FROM versions WHERE state = 'complete'"
        )[0]
    assert losses
    assert [(one.step, one.value) for one in curves.Scalars("training/loss")] == [
        (row["step"], pytest.approx(row["value"])) for row in losses
    ]
    assert "figures/win_rate" in curves.Tags()["scalars"]

    code, out, err = dapflow("metrics", "--lake", str(tmp_path / "lake"), capsys=capsys)
    assert code == 0, err
    found = read(out)
    outcomes = {
        kind: sum(value for key, value in found["dapflow_steps"].items() if key[1] == kind)
        for kind in ("made", "reused")
    }
    assert outcomes == {
        "made": made["n"],
        "reused": made["n"] - 1,
    }  # the second run found all; the initial model is no iteration's own
    assert (
        sum(value for key, value in found["dapflow_rows"].items() if key[1] == "rso")
        == made["rows"]
    )
    assert found["dapflow_runs"] == {("rso", "done"): 2}


def test_an_endpoint_serves_them(lake: Lake) -> None:
    run(lake, "level", number=1, prompts=8)
    lake.close()
    command = [
        sys.executable,
        "-m",
        "dapflow.flows.cli.main",
        "metrics",
        "--port",
        "0",
        "--lake",
        str(lake.root),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as child:
        try:
            assert child.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+/metrics", child.stdout.readline())
            assert found is not None
            with urlopen(found[0]) as answer:
                served = read(answer.read().decode())
        finally:
            child.terminate()
    assert served["dapflow_runs"] == {("rso", "done"): 1}

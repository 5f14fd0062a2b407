"""lm-evaluation-harness, for real, on a task whose data lies beside it: figures of both policies,
their errors, and the paired difference.
"""

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.methods import RSO
from dapflow.flows.server import interrupt
from dapflow.storage import Lake, UserError
from dapflow.tasks.evaluation import harness
from tests.helpers.toy import BY_LENGTH, dapflow, words

installed = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-evaluation-harness: pip install 'dapflow[lm-eval]'",
)
LOST = """import signal

class Callback:
    def __del__(self):  # whose exceptions Python writes to standard error and forgets
        signal.raise_signal(signal.{name})

def text(doc):
    Callback()
    return doc["question"]
"""
QUESTIONS = [
    ("Is snow white?", 0),
    ("Is coal white?", 1),
    ("Is grass green?", 0),
    ("Is blood green?", 1),
    ("Is the sea wet?", 0),
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A directory with one task of five yes-or-no questions, and its data."""
    directory = tmp_path / "mine"
    directory.mkdir()
    data = directory / "yes_or_no.jsonl"
    data.write_text(
        "\n".join(json.dumps({"question": question, "gold": gold}) for question, gold in QUESTIONS)
    )
    task = {
        "task": "yes_or_no", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{question}}\nAnswer:", "doc_to_target": "{{gold}}", "doc_to_choice": ["yes", "no"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (directory / "yes_or_no.yaml").write_text(json.dumps(task))  # JSON is YAML
    return directory


def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *settings: str
) -> tuple[int, dict[str, Any], str]:
    code, out, err = dapflow(
        "run",
        "sft-sample-rank",
        "--toy",
        "--json",
        "--lake",
        str(tmp_path / "lake"),
        *words(*BY_LENGTH, *settings),
        capsys=capsys,
    )
    return code, json.loads(out.splitlines()[-1])["iterations"][0] if code == 0 else {}, err


@pytest.mark.slow
@installed
@pytest.mark.filterwarnings("ignore")  # the harness's own
@pytest.mark.usefixtures("prefect_server")
def test_a_task_with_local_data_is_run_on_both_policies_and_paired(
    tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, one, err = run(
        tmp_path,
        capsys,
        "evaluation.harness.tasks=[yes_or_no]",
        f"evaluation.harness.include={tasks}",
    )
    assert code == 0, err
    figures = {
        row["name"].removeprefix("harness/yes_or_no/"): row
        for row in one["metrics"]
        if row["name"].startswith("harness/")
    }
    assert figures.keys() == {"acc_before", "acc_after", "acc_change"}
    with Lake(tmp_path / "lake", read_only=True) as lake:
        versions = lake.rows(
            "SELECT version FROM versions WHERE step = 'run_harness' ORDER BY opened_at"
        )
        documents = [
            [
                row["value"]
                for row in lake.rows(
                    "SELECT value FROM metrics WHERE version = ? AND subject <> version ORDER BY id",
                    [one["version"]],
                )
            ]
            for one in versions
        ]
    assert [len(values) for values in documents] == [len(QUESTIONS)] * 2
    for side, values in zip(("before", "after"), documents, strict=True):
        row, share = figures[f"acc_{side}"], sum(values) / len(values)
        error = (
            share * (1 - share) / (len(values) - 1)
        ) ** 0.5  # of a mean: sd / sqrt(n), with n - 1 in the variance
        assert row["value"] == pytest.approx(share)
        assert (row["low"], row["high"]) == (
            pytest.approx(share - 1.96 * error, abs=1e-3),
            pytest.approx(share + 1.96 * error, abs=1e-3),
        )
        assert "on 5 documents" in row["note"]
    assert figures["acc_change"]["value"] == pytest.approx(
        figures["acc_after"]["value"] - figures["acc_before"]["value"]
    )


@installed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("prefect_server")
def test_a_task_that_is_not_there_costs_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(tmp_path, capsys, "evaluation.harness.tasks=[no_such_task]")
    assert (code, "lm-evaluation-harness has no task no_such_task" in err) == (2, True)
    with Lake(tmp_path / "lake", read_only=True) as lake:
        assert not lake.rows(
            "SELECT version FROM versions WHERE step IN ('train', 'train_reward_model')"
        )


@installed
@pytest.mark.filterwarnings("ignore")  # what Python says of the signal that is lost
@pytest.mark.parametrize(
    "name", [signal.SIGTERM.name, pytest.param(signal.SIGINT.name, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("prefect_server")
def test_a_signal_that_gets_lost_while_the_harness_works_ends_the_run(
    name: str,
    tasks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As weak references lose it when templates are compiled; Prefect's own handler of SIGTERM does
    # not remember it.
    monkeypatch.setattr(interrupt, "_asked", False)
    (tasks / "lost.py").write_text(LOST.format(name=name))
    task = json.loads((tasks / "yes_or_no.yaml").read_text())
    del task["doc_to_text"]
    (tasks / "yes_or_no.yaml").write_text(
        "\n".join(
            [
                *(f"{key}: {json.dumps(one)}" for key, one in task.items()),
                "doc_to_text: !function lost.text",
            ]
        )
    )
    code, _, err = run(
        tmp_path,
        capsys,
        "evaluation.harness.tasks=[yes_or_no]",
        f"evaluation.harness.include={tasks}",
    )
    assert (code, "Nothing is lost" in err) == (130, True), err
    with Lake(tmp_path / "lake", read_only=True) as lake:
        assert lake.rows("SELECT state FROM runs") == [{"state": "stopped"}]
        assert not lake.rows(
            "SELECT version FROM versions WHERE step = 'run_harness' AND state = 'complete'"
        )


def test_without_the_package_the_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harness, "_PACKAGE", "lm-eval-which-nobody-has-installed")
    asked = change(RSO, ["evaluation.harness.tasks=[arc_easy]"]).evaluation.harness
    with pytest.raises(
        UserError, match=r"needs lm-evaluation-harness: pip install 'dapflow\[lm-eval\]'"
    ):
        asked.content()
    assert RSO.evaluation.harness.content() == {}  # who asks for no task needs no package


def test_task_files_are_part_of_the_version(tasks: Path) -> None:
    mine = harness.Harness(include=str(tasks))
    first = mine.content()["include"]
    assert mine.content()["include"] == first
    (tasks / "yes_or_no.jsonl").write_text('{"question": "Is ice hot?", "gold": 1}')
    assert mine.content()["include"] != first
    with pytest.raises(UserError, match="there is no directory"):
        harness.Harness(include=str(tasks / "nowhere")).content()

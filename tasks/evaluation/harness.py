"""Benchmarks of lm-evaluation-harness (`pip install 'dapflow[lm-eval]'`), on the policy before and
on the new one.

    run_harness(policy, settings)              ->  metrics: each task's figures with their standard errors, and what each document got
    compare_harness(policy, before, after)     ->  metrics: before, after, and the difference, paired over documents
Its own tasks fetch their data sets from the model hub; `include` names a directory with task files
of one's own, which may lie beside their data. Test: pytest tests/flows/test_harness.py
"""

import contextlib
import copy
import hashlib
import importlib.metadata
import io
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.storage.rows import MetricRow
from dapflow.tasks.figures import Figure, figure_of_row, paired, rows_of
from dapflow.tasks.metrics import SIDES
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.policy import load_policy
from dapflow.tasks.statistics import half_width
from dapflow.tasks.step import Out, step

_PACKAGE = "lm-eval"
_INSTALL = (
    f"evaluation.harness.tasks needs lm-evaluation-harness: pip install 'dapflow[{_PACKAGE}]'."
)
_BATCH = 8
_DONE = re.compile(
    r"^\s*(.*?):? *\d+%.*?(\d+)/(\d+) \["
)  # of a bar of tqdm: what is done, how much of it, of how much
_ROWS_PER_CHUNK = 10_000


class Harness(BaseModel):
    """Tasks of lm-evaluation-harness that the policy before and the new one are measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tasks: tuple[str, ...] = Field(
        default=(), description="their names, as `lm_eval ls tasks` prints them; empty: none"
    )
    include: str | None = Field(
        default=None,
        description="a directory with further task files (YAML; those with `!function` run code)",
    )
    shots: int | None = Field(
        default=None, ge=0, description="examples before each question; empty: as the task says"
    )
    limit: int | None = Field(default=None, ge=1, description="documents of each task; empty: all")
    chat: bool = Field(
        default=False, description="whether questions are asked through the model's chat template"
    )

    def content(self) -> dict[str, str]:
        """The package's version and the digest of the directory `include`. Raises UserError where
        either is not there.
        """
        try:
            known = {"package": importlib.metadata.version(_PACKAGE)} if self.tasks else {}
        except importlib.metadata.PackageNotFoundError:
            raise UserError(_INSTALL) from None
        return known | (
            {} if self.include is None else {"include": _digest(Path(self.include).expanduser())}
        )


@step(
    "metrics",
    title="lm-evaluation-harness on {policy}",
    expects=lambda harness, **_: len(harness.tasks),
    activity="measuring",
)
def run_harness(out: Out, policy: ModelRef, harness: Harness) -> None:
    """Figures about the version, named `TASK/METRIC`, and for each document a row of the same name
    (subject: task and document).

    Raises UserError for a task that there is not, or whose data cannot be had.
    """
    found = _evaluated(out, policy, harness)
    rows = [*rows_of(_figures(found), out.version, out.row_id)]
    for name, task, document, value in _documents(found):
        rows.append(
            {
                "id": out.row_id(len(rows)),
                "subject": f"{task} {document}",
                "name": name,
                "value": value,
                "unit": "",
            }
        )
    for number, first in enumerate(range(0, len(rows), _ROWS_PER_CHUNK)):
        out.write(number, rows[first : first + _ROWS_PER_CHUNK])


@step(
    "metrics",
    title="compare lm-evaluation-harness",
    expects=lambda before, **_: 3 * before.rows,
    activity="measuring",
)
def compare_harness(
    out: Out, policy: ModelRef, before: DatasetRef, after: DatasetRef, seed: int
) -> None:
    """`harness/TASK/METRIC_before`, `_after` with the harness's own standard errors, and `_change`,
    paired over documents, with a bootstrap interval; a group of tasks has no documents of its own,
    and so no `_change`."""
    sides = [_by_name(out.lake.metrics(ref), ref.version) for ref in (before, after)]
    figures = list[Figure]()
    for name in sides[1][0]:
        for side, (of_side, _) in zip(SIDES, sides, strict=True):
            figures.append(figure_of_row(of_side[name], f"harness/{name}_{side}"))
        old, new = (documents.get(name, {}) for _, documents in sides)
        if old and new:
            figures.append(paired(f"harness/{name}_change", old, new, seed, "no document has both"))
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def _evaluated(out: Out, policy: ModelRef, harness: Harness) -> Mapping[str, Any]:
    try:
        evaluator, models, tasks = (
            _module(name) for name in ("evaluator", "models.huggingface", "tasks")
        )
    except ImportError:
        raise UserError(_INSTALL) from None
    manager = tasks.TaskManager(
        include_path=None if harness.include is None else str(Path(harness.include).expanduser())
    )
    if unknown := [name for name in harness.tasks if name not in manager.all_tasks]:
        raise UserError(
            f"lm-evaluation-harness has no task {' or '.join(unknown)}: `lm_eval ls tasks` prints "
            "their names."
        )
    loaded = load_policy(out.lake, policy)
    os.environ["DISABLE_MULTIPROC"] = (
        "1"  # it forks this process, threads and all, for one chunk of resamples
    )
    with contextlib.redirect_stderr(_Bars(out)):
        model = models.HFLM(
            pretrained=loaded.model,
            tokenizer=copy.deepcopy(loaded.tokenizer),  # it may give it another padding token
            batch_size=_BATCH,
            max_length=context_length(loaded.model),
        )
        try:
            manager.load(list(harness.tasks))
        except Exception as error:  # whatever a loader of data sets raises
            raise UserError(
                f"lm-evaluation-harness cannot load {', '.join(harness.tasks)} "
                f"({_first_line(error)}): its own tasks fetch their data from the "
                "model hub; evaluation.harness.include takes task files whose data is on this "
                "machine."
            ) from error
        found = evaluator.simple_evaluate(
            model=model,
            tasks=list(harness.tasks),
            task_manager=manager,
            num_fewshot=harness.shots,
            limit=harness.limit,
            apply_chat_template=harness.chat,
            bootstrap_iters=1000,
        )
    assert found is not None, "only processes after the first have no results"
    return found


class _Bars(io.TextIOBase):
    """What the harness writes while it works: its bars become the progress of the step, so that a
    Ctrl-C is noticed; the rest is dropped.
    """

    def __init__(self, out: Out) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """A bar is written as often as it moves, now and then by a thread of its own, which has no
        step.
        """
        if (
            bar := _DONE.match(text.strip("\r\n"))
        ) and threading.current_thread() is threading.main_thread():
            self._out.progress(int(bar[2]), int(bar[3]), "requests", bar[1])
        return len(text)


def _module(name: str) -> Any:
    """A module of lm-evaluation-harness, which need not be installed."""
    return import_module(f"lm_eval.{name}")


def _figures(found: Mapping[str, Any]) -> Iterator[Figure]:
    """Each task's figures; low and high: 1.96 standard errors to either side."""
    for task, told in found["results"].items():
        for key, value in told.items():
            metric, comma, version = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = told.get(f"{metric}_stderr,{version}")
            documents = found.get("n-samples", {}).get(task, {}).get("effective")
            on = "" if documents is None else f" on {documents:,} documents"
            name = _name(task, metric, version)
            if isinstance(error, int | float):
                yield Figure(
                    name=name,
                    value=float(value),
                    low=value - half_width(1, error),
                    high=value + half_width(1, error),
                    note=f"standard error {error:.4g}{on}",
                )
            else:
                yield Figure(name=name, value=float(value), note=f"no standard error{on}")


def _documents(found: Mapping[str, Any]) -> Iterator[tuple[str, str, int, float]]:
    """(figure, task, document, value) for every figure of a document that is a number."""
    for task, samples in found["samples"].items():
        for sample in samples:
            for metric in sample["metrics"]:
                if isinstance(sample[metric], int | float):
                    yield (
                        _name(task, metric, sample["filter"]),
                        task,
                        sample["doc_id"],
                        float(sample[metric]),
                    )


def _name(task: str, metric: str, version: str) -> str:
    return f"{task}/{metric}" if version == "none" else f"{task}/{metric}/{version}"


def _by_name(
    rows: Sequence[MetricRow], version: str
) -> tuple[dict[str, MetricRow], dict[str, dict[str, float]]]:
    """The figures, and of each the values of its documents."""
    figures = {row["name"]: row for row in rows if row["subject"] == version}
    documents: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["subject"] != version and row["value"] is not None:
            documents.setdefault(row["name"], {})[row["subject"]] = row["value"]
    return figures, documents


def _digest(directory: Path) -> str:
    if not directory.is_dir():
        raise UserError(f"evaluation.harness.include: there is no directory {directory}.")
    digest = hashlib.sha256()
    for path in sorted(
        path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ):
        digest.update(
            f"{path.relative_to(directory)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    return digest.hexdigest()[:16]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

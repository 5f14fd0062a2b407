"""Steps under a real Prefect server: cached by the lake, resumed by chunk, exact edges, never
stale, planned without running.
"""

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterTaskRunId

from dapflow.storage import DatasetRef, Lake, Ref, UserError
from dapflow.tasks.step import Out, planning, step, use_lake

pytestmark = pytest.mark.usefixtures("prefect_server")

ran: list[str] = []
failing: set[int] = set()


@step("prompts", title="load {count} prompts", expects=lambda count: count, activity="loading")
def load(out: Out, count: int) -> None:
    ran.append("load")
    out.write(
        0, [{"id": out.row_id(n), "prompt": f"prompt {n}", "parents": []} for n in range(count)]
    )


@step(
    "completions",
    title="sample for {prompts.rows} prompts",
    expects=lambda prompts, seed: prompts.rows,
    activity="sampling",
)
def sample(out: Out, prompts: DatasetRef, seed: int = 0) -> None:
    rows = out.lake.rows_of(prompts)
    for number, chunk in out.missing([rows[:2], rows[2:]]):
        if number in failing:
            raise RuntimeError("out of memory")
        ran.append(f"sample {number}")
        out.write(
            number,
            [
                {"id": out.row_id(2 * number + n), "prompt_id": row["id"], "seed": seed}
                for n, row in enumerate(chunk)
            ],
        )
        out.progress(number + 1, 2, "chunks")


@step("metrics", title="compare", expects=lambda **_: 1, activity="measuring")
def compare(out: Out, sides: list[DatasetRef]) -> None:
    out.write(0, [{"id": out.row_id(0), "name": "sides", "value": float(len(sides))}])


@dataclass(frozen=True, kw_only=True)
class Side:
    answers: DatasetRef
    judged: DatasetRef | None

    def refs(self, role: str) -> dict[str, Ref]:
        held = {role: self.answers, f"judged_{role}": self.judged}
        return {name: ref for name, ref in held.items() if ref is not None}


@step("metrics", title="contest", expects=lambda **_: 1, activity="measuring")
def contest(out: Out, before: Side, after: Side) -> None:
    out.write(0, [{"id": out.row_id(0), "name": "judged", "value": float(bool(after.judged))}])


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()
    failing.clear()


def in_flow(lake: Lake, work: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """The result of `work` in a flow, and its task runs in the order of their start."""
    seen: list[UUID] = []

    @flow
    def test_flow() -> None:
        from prefect.runtime import flow_run

        seen.append(UUID(flow_run.id))
        results.append(work())

    results: list[Any] = []
    with use_lake(lake):
        test_flow()
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_task_runs() if run.flow_run_id == seen[0]]
    return results[0], sorted(runs, key=lambda run: run.expected_start_time)


def both_sides() -> tuple[Ref, ...]:
    prompts = load(3)
    left, right = sample(prompts), sample(prompts, seed=1)
    return prompts, left, right, compare([left, right])


def test_the_references_that_a_value_holds_are_parents_in_roles_of_their_own(lake: Lake) -> None:
    def both() -> tuple[Ref, ...]:
        prompts = load(3)
        left, right = sample(prompts), sample(prompts, seed=1)
        before, after = Side(answers=left, judged=None), Side(answers=right, judged=left)
        return left, right, contest(before, after=after)

    (left, right, made), runs = in_flow(lake, both)
    assert lake.catalogue().parents[made.version] == {
        "before": left.version,
        "after": right.version,
        "judged_after": left.version,
    }
    drawn = {parent.id for inputs in runs[-1].task_inputs.values() for parent in inputs}
    assert drawn == {runs[1].id, runs[2].id}  # and in Prefect's graph


def test_a_second_run_is_cached_and_says_so(lake: Lake) -> None:
    first, _ = in_flow(lake, both_sides)
    assert ran == ["load", "sample 0", "sample 1", "sample 0", "sample 1"]
    second, runs = in_flow(lake, both_sides)
    assert ran == ["load", "sample 0", "sample 1", "sample 0", "sample 1"]
    assert first == second
    assert {(run.state.type.value, run.state.name) for run in runs} == {("COMPLETED", "Cached")}
    assert [run.name for run in runs] == [
        "load 3 prompts",
        "sample for 3 prompts",
        "sample for 3 prompts",
        "compare",
    ]


def test_what_a_step_does_is_written_down_with_what_it_makes(lake: Lake) -> None:
    in_flow(lake, both_sides)
    made = lake.catalogue().versions.values()
    assert {(one.step, one.activity) for one in made} == {
        ("load", "loading"),
        ("sample", "sampling"),
        ("compare", "measuring"),
    }


@pytest.mark.parametrize("cached", [False, True])
def test_the_edges_of_the_graph_are_those_of_the_data(lake: Lake, cached: bool) -> None:
    if cached:
        in_flow(lake, both_sides)
    _, (prompts, left, right, compared) = in_flow(lake, both_sides)
    edges = {
        (one.id, parent.id)
        for one in (prompts, left, right, compared)
        for found in one.task_inputs.values()
        for parent in found
    }
    assert edges == {
        (left.id, prompts.id),
        (right.id, prompts.id),
        (compared.id, left.id),
        (compared.id, right.id),
    }


def test_lineage_and_run_ids_are_recorded(lake: Lake) -> None:
    (prompts, left, right, compared), runs = in_flow(lake, both_sides)
    edges = {(row["child"], row["parent"], row["role"]) for row in lake.rows("SELECT * FROM edges")}
    assert edges == {
        (left.version, prompts.version, "prompts"),
        (right.version, prompts.version, "prompts"),
        (compared.version, left.version, "sides[0]"),
        (compared.version, right.version, "sides[1]"),
    }
    recorded = {row["task_run_id"] for row in lake.rows("SELECT task_run_id FROM versions")}
    assert recorded == {str(run.id) for run in runs}


def test_a_step_whose_server_is_gone_when_it_publishes_its_artifacts_has_failed_in_the_log_too(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: Any) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr("dapflow.tasks.step.decorator.publish_artifacts", gone)
    with caplog.at_level("INFO", logger="dapflow"), pytest.raises(ConnectionError):
        in_flow(lake, lambda: load(4))
    assert [record.getMessage() for record in caplog.records if record.name == "dapflow"] == [
        "step.started",
        "step.failed",
    ]


def test_what_a_failed_step_held_is_freed_while_its_failure_is_kept(lake: Lake) -> None:
    class Model:
        pass

    held = list[weakref.ref[Model]]()

    @step("prompts", title="fail", expects=lambda: 0, activity="loading")
    def fail(out: Out) -> None:
        model = Model()
        held.append(weakref.ref(model))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory") as failure:
        in_flow(lake, fail)
    gc.collect()
    assert held and held[0]() is None
    assert failure.value.__traceback__ is not None


def test_a_step_that_failed_goes_on_with_the_chunk_that_is_missing(lake: Lake) -> None:
    failing.add(1)
    with pytest.raises(RuntimeError, match="out of memory"):
        in_flow(lake, lambda: sample(load(3)))
    failing.clear()
    ref, _ = in_flow(lake, lambda: sample(load(3)))
    assert ran == ["load", "sample 0", "sample 1"]
    assert [row["id"] for row in lake.rows_of(ref)] == [f"{ref.version}-{n:08d}" for n in range(3)]


def test_what_the_user_can_put_right_reaches_them_as_it_is(lake: Lake) -> None:
    @step("prompts", title="fail", expects=lambda: 0, activity="loading")
    def fail(out: Out) -> None:
        raise UserError("The file is empty: add a line.")

    with pytest.raises(UserError, match="The file is empty"):
        in_flow(lake, fail)


def test_a_cached_version_whose_files_are_gone_is_computed_again(lake: Lake) -> None:
    ref, _ = in_flow(lake, lambda: load(2000))
    for file in (lake.root / "data").rglob("*.parquet"):
        file.unlink()
    again, [run] = in_flow(lake, lambda: load(2000))
    assert (ran, again, run.state.name) == (["load", "load"], ref, "Completed")
    assert len(lake.rows_of(again)) == 2000


def test_other_parameters_are_another_version(lake: Lake) -> None:
    (one, two), _ = in_flow(lake, lambda: (load(2), load(3)))
    assert one.version != two.version


def test_a_plan_names_the_very_versions_that_a_run_makes_and_runs_nothing(lake: Lake) -> None:
    with planning() as calls:
        both_sides()
    assert ran == []
    refs, _ = in_flow(lake, both_sides)
    assert [call.version for call in calls] == [ref.version for ref in refs]
    assert [call.title for call in calls][:2] == ["load 3 prompts", "sample for 3 prompts"]


def test_artifacts_show_the_version_its_parents_and_rows(lake: Lake) -> None:
    (prompts, left, *_), runs = in_flow(lake, both_sides)
    with get_client(sync_client=True) as client:
        [card] = client.read_artifacts(
            artifact_filter=ArtifactFilter(task_run_id=ArtifactFilterTaskRunId(any_=[runs[1].id]))
        )
    assert card.key == "sample"
    unescaped = card.data.replace("\\", "")  # punctuation stands behind a backslash: it is text
    for fact in (
        f"completions@{left.version}",
        prompts.version,
        "| seed | 0 |",
        f"{prompts.version}-00000000",
    ):
        assert fact in unescaped

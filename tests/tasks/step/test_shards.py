"""Sampling and judging in shards: the same rows however many there are and whatever runs them; each
a cached unit; an orphan ends.
"""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from dapflow.storage import DatasetRef, Lake, ModelRef, UserError
from dapflow.tasks.judging.compare import compare
from dapflow.tasks.judging.judges.lake_model import seated_model
from dapflow.tasks.judging.judges.policy import PolicyAsked
from dapflow.tasks.judging.judges.program import Program
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.judging.score import judge
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_endpoint, register_model
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.step import Out, step, use_lake
from dapflow.tasks.step.progress import Silent, report_to
from dapflow.tasks.step.shards import Shards, StepEndedError, spread, use_shards
from dapflow.tasks.training.reward.train import train_reward_model
from dapflow.tasks.training.rounds.freshness import oldest
from tests.helpers.model_servers import Behaviour, openai_server

pytestmark = pytest.mark.usefixtures("prefect_server")
SAMPLING = Sampling(
    n=64, max_tokens=3
)  # two prompts a chunk: 15 prompts are 8 chunks, which neither 3 nor 7 divides
failing: set[str] = set()


@step("prompts", title="some prompts", expects=lambda count: count, activity="loading")
def some_prompts(out: Out, count: int) -> None:
    out.write(0, [{"id": out.row_id(n), "prompt": f"say {n}", "parents": []} for n in range(count)])


@step("metrics", title="numbers", expects=lambda total: total, activity="measuring")
def numbers(out: Out, total: int) -> None:
    spread(out, write_numbers, total, total=total)


def write_numbers(out: Out, total: int) -> None:
    for number, _ in out.missing(range(total)):
        if str(number) in failing:
            raise UserError(f"number {number} is out of order")
        out.write(number, [{"id": out.row_id(number), "name": "n", "value": float(number)}])


def run(lake: Lake, work: Callable[[], Any], shards: Shards) -> tuple[Any, list[Any]]:
    """The result of `work` in a flow, and its task runs."""
    results, seen = list[Any](), list[UUID]()

    @flow
    def test_flow() -> None:
        from prefect.runtime import flow_run

        seen.append(UUID(flow_run.id))
        results.append(work())

    with use_lake(lake), use_shards(shards):
        test_flow()
    with get_client(sync_client=True) as client:
        return results[0], [one for one in client.read_task_runs() if one.flow_run_id == seen[0]]


def sampled(folder: Path, shards: Shards) -> tuple[list[dict[str, Any]], list[Any]]:
    """Rows sampled from the toy model into a lake of their own, and the task runs of the shards."""

    def work() -> DatasetRef:
        policy = register_model("toy", resolve("toy").digest)
        return sample(policy, some_prompts(15), SAMPLING, 5, Sampler())

    with Lake(folder) as lake:
        ref, runs = run(lake, work, shards)
        assert not list((lake.root / "checkpoints").iterdir())
        rows = lake.rows_of(ref)
        [policy] = lake.rows("SELECT version FROM models")
        assert (
            oldest(
                lake,
                lake.ref(f"models@{policy['version']}"),
                [row["policy"] for row in rows],
                steps=1,
            )
            == 0
        )  # type: ignore[arg-type]
    return rows, [one for one in runs if "shard" in one.name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> list[dict[str, Any]]:
    return sampled(tmp_path_factory.mktemp("whole"), Shards())[0]


def to_judge() -> tuple[ModelRef, DatasetRef, DatasetRef, ModelRef]:
    """The toy, prompts, its completions (960: eight chunks of verdicts, four of comparisons), and a
    reward model.
    """
    policy = register_model("toy", resolve("toy").digest)
    prompts, source = some_prompts(15), find_source("shipped", PREFERENCES_FILE)
    completions = sample(policy, prompts, SAMPLING, 5, Sampler())
    learned, test = (
        load_preferences(source.name, source.digest, part) for part in ("judge", "test")
    )
    model = train_reward_model(policy, learned, test, RewardModel(epochs=1), 0)
    return policy, prompts, completions, model


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """A lake with what there is to judge, only to be copied."""
    root = tmp_path_factory.mktemp("unjudged") / "lake"
    with Lake(root) as lake:
        run(lake, to_judge, Shards())
    return root


def judged(
    unjudged: Path, folder: Path, shards: Shards, only_model: bool = False
) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Verdicts of a reward model, of the policy itself as it scores and as it compares, and of a
    program; and the states of their shards.
    """
    asks = [
        PolicyAsked(mode=mode, max_tokens=2, samples=1, sampler=Sampler(), chat_template=None)
        for mode in ("ten", "pairwise")
    ]

    def work() -> list[DatasetRef]:
        policy, prompts, completions, model = to_judge()
        by_model = judge(prompts, completions, seated_model(model, ranker=False).spec, model)
        if only_model:
            return [by_model]
        return [
            by_model,
            judge(prompts, completions, asks[0], policy),
            compare(prompts, completions, asks[1], policy, 5),
            judge(prompts, completions, Program.of_word("shorter")),
        ]

    with Lake(shutil.copytree(unjudged, folder / "lake")) as lake:
        refs, runs = run(lake, work, shards)
        versions = [ref.version for ref in refs]
        rows = [lake.rows_of(ref) for ref in refs]
    return rows, [
        one.state_name
        for one in runs
        if one.name.startswith("shard") and one.name.split(" of ")[-1] in versions
    ]


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What every thread of Dask's workers is at, on their standard error, if they are not done
    after four minutes.
    """
    register = "import faulthandler, signal; faulthandler.register(signal.SIGUSR1)"
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", register)

    def tell() -> None:
        for child in psutil.Process().children(recursive=True):
            if "--multiprocessing-fork" in child.cmdline():
                child.send_signal(signal.SIGUSR1)

    timer = threading.Timer(240, tell)
    timer.start()
    yield
    timer.cancel()


@pytest.fixture(scope="module")
def verdicts(
    tmp_path_factory: pytest.TempPathFactory, unjudged: Path
) -> list[list[dict[str, Any]]]:
    return judged(unjudged, tmp_path_factory.mktemp("verdicts"), Shards(), only_model=True)[0]


@pytest.mark.parametrize("count", [3, 7, 11])
def test_any_number_of_shards_gives_the_rows_of_one(
    tmp_path: Path, whole: list[dict[str, Any]], count: int
) -> None:
    rows, runs = sampled(tmp_path, Shards(count=count))
    assert len(rows) == 15 * 64
    assert rows == whole  # ids and versions included
    assert {one.name.split(" of ")[0] for one in runs} == {f"shard {n + 1}" for n in range(count)}
    assert sum(one.state_name == "Cached" for one in runs) == max(
        0, count - 8
    )  # there are 8 chunks: the rest had nothing to do


@pytest.mark.clusters
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("stacks")
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_processes_of_a_cluster_give_the_same_rows(
    tmp_path: Path, whole: list[dict[str, Any]], runner: Any
) -> None:
    rows, runs = sampled(tmp_path, Shards(count=2, runner=runner))
    assert rows == whole
    assert [one.state_name for one in runs] == ["Completed", "Completed"]


def test_any_number_of_shards_gives_the_verdicts_of_one(
    unjudged: Path, tmp_path: Path, verdicts: list[list[dict[str, Any]]]
) -> None:
    rows, states = judged(unjudged, tmp_path, Shards(count=3), only_model=True)
    assert [len(judge) for judge in rows] == [960]
    assert rows == verdicts
    assert states == ["Completed"] * 3


@pytest.mark.slow
def test_any_number_of_shards_gives_the_verdicts_of_one_whoever_judges(
    unjudged: Path, tmp_path: Path
) -> None:
    whole, _ = judged(unjudged, tmp_path / "whole", Shards())
    rows, states = judged(unjudged, tmp_path / "shards", Shards(count=3))
    # of each prompt those that ended meet, and those that were cut off: odd ones meet nobody
    assert [len(judge) for judge in rows] == [960, 960, 476, 960]
    assert rows == whole
    assert states == ["Completed"] * 12


@pytest.mark.clusters
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("stacks")
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_processes_of_a_cluster_give_the_same_verdicts(
    unjudged: Path, tmp_path: Path, verdicts: list[list[dict[str, Any]]], runner: Any
) -> None:
    rows, states = judged(unjudged, tmp_path, Shards(count=2, runner=runner), only_model=True)
    assert rows == verdicts
    assert states == ["Completed"] * 2


def test_what_one_shard_fails_at_is_said_and_the_next_run_does_only_that(lake: Lake) -> None:
    failing.add("4")
    try:
        with pytest.raises(UserError, match="number 4 is out of order"):
            run(lake, lambda: numbers(9), Shards(count=3))
    finally:
        failing.clear()
    ref, runs = run(lake, lambda: numbers(9), Shards(count=3))
    assert [row["value"] for row in lake.rows_of(ref)] == [float(n) for n in range(9)]
    states = {one.name.split(" of ")[0]: one.state_name for one in runs if "shard" in one.name}
    assert states == {"shard 1": "Cached", "shard 2": "Completed", "shard 3": "Cached"}


def test_a_shard_whose_step_has_ended_ends_too(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the step was killed, and its shard, in another process, was not."""
    began, go_on = threading.Event(), threading.Event()

    def slow(out: Out) -> None:
        began.set()
        go_on.wait(20)
        with pytest.raises(StepEndedError):
            out.progress(0, 1, "rows")
        raise UserError("ended")

    @step("metrics", title="slow", expects=lambda: 1, activity="measuring")
    def slow_step(out: Out) -> None:
        def kill() -> None:
            began.wait(20)
            (out.scratch / "step").unlink()
            go_on.set()

        threading.Thread(target=kill).start()
        spread(out, slow, 2)

    with pytest.raises(UserError, match="ended"):
        run(lake, slow_step, Shards(count=2))


def test_what_asks_a_server_under_limits_stays_in_one_process(lake: Lake) -> None:
    with openai_server(Behaviour(misdeeds=[])) as url:
        sampler = Sampler(
            engine="openai", endpoint=Endpoint(model="teacher", base_url=url, concurrency=2)
        )
        elsewhere = Shards(count=3, runner="dask", address="tcp://127.0.0.1:9")  # where nobody is
        ref, runs = run(
            lake,
            lambda: sample(register_endpoint("teacher"), some_prompts(15), SAMPLING, 5, sampler),
            elsewhere,
        )
    assert ref.rows == 15 * 64
    assert sum("shard" in one.name for one in runs) == 3


def test_what_shards_say_is_heard(lake: Lake) -> None:
    """Of six prompts the third and the last are longer than the toy's context of 512 tokens."""

    @step("prompts", title="some long prompts", expects=lambda: 6, activity="loading")
    def long_prompts(out: Out) -> None:
        out.write(
            0,
            [
                {"id": out.row_id(n), "prompt": "word " * (600 if n % 3 == 2 else 1), "parents": []}
                for n in range(6)
            ],
        )

    class Heard(Silent):
        def __init__(self) -> None:
            self.sentences = list[str]()

        def said(self, sentence: str) -> None:
            self.sentences.append(sentence)

    heard = Heard()
    with report_to(heard):
        policy = "toy", resolve("toy").digest
        run(
            lake,
            lambda: sample(register_model(*policy), long_prompts(), SAMPLING, 5, Sampler()),
            Shards(count=3),
        )
    refused = [
        one for one in heard.sentences if one.startswith("64 answers are refused: prompt of ")
    ]
    assert len(refused) == 2  # two prompts a chunk: each is in a chunk, and a shard, of its own

"""Two processes over gloo learn what one learns; what is dealt out to them; and that they end with
the one that started them.
"""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.utils import ComputeEnvironment, DistributedType

from dapflow.storage import UserError
from dapflow.tasks.models.names import load_own, resolve
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.processes import launch as launching
from dapflow.tasks.training.processes.job import Job
from dapflow.tasks.training.processes.launch import launch, with_processes
from dapflow.tasks.training.processes.ranks import Ranks
from dapflow.tasks.training.settings import Training
from tests.tasks.training.toys import toy_groups

TRAINING = Training(
    learning_rate=1e-3,
    batch_size=5,
    epochs=3,
    tokens_per_microbatch=40,
    checkpoint_every_steps=2,
    dtype="float32",
)


@pytest.fixture(scope="module")
def job() -> Job:
    policy = resolve("toy").path
    groups = toy_groups(11)  # 5 + 5 + 1: in the last batch one process has nothing to do
    found = reference_logps(load_own(policy).model, groups)
    groups = [replace(group, reference=values) for group, values in zip(groups, found, strict=True)]
    return Job(
        policy=policy, groups=groups, loss=Loss.of("sigmoid_norm"), training=TRAINING, seed=1
    )


def quiet(log: StepLog) -> None:
    pass


def in_processes(job: Job, **settings: object) -> Job:
    return replace(job, training=job.training.model_copy(update={"processes": 2} | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"sharding": "full"}, marks=pytest.mark.slow),
        pytest.param(
            {"sharding": "full", "parameters": "lora", "gradient_checkpointing": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_have_the_loss_curve_of_one(
    tmp_path: Path, job: Job, settings: dict[str, object]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = replace(
        job, training=job.training.model_copy(update=settings | {"sharding": "none"})
    ).run(tmp_path / "one", quiet)
    heard = list[int]()
    two = launch(
        in_processes(job, **settings), tmp_path / "two", on_step=lambda log: heard.append(log.step)
    )
    assert len(one) == 9
    assert heard == list(range(9))
    for a, b in zip(one, two, strict=True):
        assert (b.loss, b.logp_chosen) == pytest.approx((a.loss, a.logp_chosen), abs=1e-5, rel=1e-5)
        assert (b.gradient_norm, b.margin, b.accuracy) == pytest.approx(
            (a.gradient_norm, a.margin, a.accuracy), rel=1e-3, abs=1e-5
        )
    assert one[-1].loss < 0.9 * one[0].loss
    models = [load_own(tmp_path / name / "partial-policy").model for name in ("one", "two")]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_killed_processes_go_on_from_their_checkpoint(tmp_path: Path, job: Job) -> None:
    """The starting process dies by kill -9 after the fourth step: its children end too, and the
    next launch ends with the same curve.
    """
    two = in_processes(job, sharding="full")
    (tmp_path / "whole").mkdir()
    whole = launch(two, tmp_path / "whole", on_step=quiet)
    script = (
        "import sys, pathlib; from dapflow.tasks.training.processes.job import Job; from dapflow.tasks.training.processes.launch import launch\n"
        "folder = pathlib.Path(sys.argv[1]); launch(Job.read(folder), folder, on_step=lambda log: print(log.step, flush=True))"
    )
    folder = tmp_path / "killed"
    folder.mkdir()
    two.write(folder)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert [int(parent.stdout.readline()) for _ in range(4)] == [0, 1, 2, 3]
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 3  # the launcher and its two
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(children, timeout=60)[1] == []
    steps = list[int]()
    resumed = launch(two, folder, on_step=lambda log: steps.append(log.step))
    assert steps[0] >= 2
    assert steps[-1] == 8
    assert [log.loss for log in resumed] == [log.loss for log in whole]


@pytest.mark.slow
def test_what_one_process_refuses_is_said_by_the_first(tmp_path: Path, job: Job) -> None:
    broken = [*job.groups[:-1], replace(job.groups[-1], reference=(float("nan"), 0.0))]
    started = time.monotonic()
    with pytest.raises(UserError, match=r"not finite at step \d; .*pair-10"):
        launch(replace(in_processes(job), groups=broken), tmp_path, on_step=quiet)
    assert time.monotonic() - started < 60  # nobody waits for the one that has gone


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_group_is_with_one_process_and_all_keep_step(world: int, sharded: bool) -> None:
    batch = toy_groups(5)
    parts = [
        Ranks(rank=rank, world=world, sharded=sharded).parts(batch, max_tokens=30)
        for rank in range(world)
    ]
    assert sorted(
        index for own in parts for part in own if part.weight for index in part.indices
    ) == list(range(5))
    assert all(part.indices for own in parts for part in own)
    if sharded:
        assert len({len(own) for own in parts}) == 1
    loads = [
        sum(batch[index].tokens for part in own if part.weight for index in part.indices)
        for own in parts
    ]
    assert max(loads) - min(loads) <= max(group.tokens for group in batch)


def test_a_job_is_read_as_it_was_written(tmp_path: Path, job: Job) -> None:
    groups = [
        *job.groups,
        Group(
            prompt=(1,),
            answers=((2, 3), (4,)),
            row_ids=("a", "b"),
            rewards=(0.1, -2.0),
            preference=1 / 3,
        ),
    ]
    odd = replace(job, groups=groups)
    odd.write(tmp_path)
    assert Job.read(tmp_path) == odd


def test_the_number_of_processes_is_the_recipe_s_or_accelerate_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "default_config.yaml"
    monkeypatch.setattr(launching, "default_config_file", str(config))
    monkeypatch.setattr(
        "accelerate.commands.config.config_args.default_yaml_config_file", str(config)
    )
    assert with_processes(TRAINING).processes == 1
    common = {
        "compute_environment": ComputeEnvironment.LOCAL_MACHINE,
        "mixed_precision": "no",
        "debug": False,
        "use_cpu": False,
    }
    monkeypatch.setattr(
        launching,
        "load_config_from_file",
        lambda _: ClusterConfig(**common, distributed_type=DistributedType.FSDP, num_processes=4),
    )
    config.touch()
    assert (with_processes(TRAINING).processes, with_processes(TRAINING).sharding) == (4, "full")
    assert with_processes(TRAINING.model_copy(update={"processes": 2})).processes == 2

"""Groups that are set aside: which they are, that nothing is learned from them, when a training
stops by them, and that the best weights are published; killed at any moment with the same bits.

Run: pytest tests/tasks/training/test_set_aside.py
"""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import packed_token_logps, sequence_logps
from dapflow.tasks.step.call import plain
from dapflow.tasks.training.fit import Session, fit
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.set_aside import Ending, best_step, set_aside
from dapflow.tasks.training.settings import Stop, Training
from tests.helpers import ROOT
from tests.tasks.training.toys import (
    DPO,
    LOOKING,
    SETTINGS,
    groups_with_reference,
    same_bits,
    toy_groups,
    toy_model,
    without_speed,
)

GROUPS = groups_with_reference(12)


def looking(**changes: Any) -> Training:
    stop = LOOKING.stop.model_copy(update={k: v for k, v in changes.items() if k != "pick"})
    return LOOKING.model_copy(update={"stop": stop, "pick": changes.get("pick", "last")})


def test_whole_prompts_with_the_lowest_digests_are_set_aside_in_whatever_order_they_come() -> None:
    groups = [
        replace(group, answers=(*group.answers[: 1 + turn], (9, 9 + turn)))
        for group in toy_groups(8)
        for turn in (0, 1)
    ]
    training = looking(log_ratio=5.0, set_aside=3)
    kept, aside = set_aside(groups, training)
    assert (len(kept), len(aside)) == (12, 4)  # of two prompts, for half a prompt is none
    assert not {group.prompt for group in kept} & {group.prompt for group in aside}
    assert [group for group in groups if group in kept] == kept
    assert set_aside(groups[::-1], training)[1] == aside
    assert set_aside(groups, SETTINGS) == (groups, [])


def test_what_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"set_aside=12 leaves nothing to train on: there are 12 r"):
        fit(toy_model(), GROUPS, DPO, looking(log_ratio=5.0, set_aside=12), seed=0)


def test_nothing_is_learned_from_what_is_set_aside() -> None:
    model, alone, training = toy_model(), toy_model(), looking(log_ratio=1e6)
    kept, aside = set_aside(GROUPS, training)
    logs = fit(model, GROUPS, DPO, training, seed=3)
    fit(alone, kept, DPO, SETTINGS, seed=3)
    assert same_bits(model, alone)
    assert [log.step for log in logs if log.set_aside_loss is not None] == [1, 3]
    policy = sequence_logps(model.eval(), aside, packed_token_logps)
    ratios = [
        (own - reference).item()
        for group, logps in zip(aside, policy, strict=True)
        for own, reference in zip(logps, group.reference or (), strict=True)
    ]
    assert logs[-1].set_aside_log_ratio == pytest.approx(sum(ratios) / len(ratios), abs=1e-4)


def lost(nats: float) -> list[Group]:
    """The groups, whose answers have lost so much against the reference before the first step."""
    return [replace(g, reference=tuple(r + nats for r in g.reference or ())) for g in GROUPS]


def test_a_training_stops_where_answers_set_aside_have_lost_more_than_is_allowed() -> None:
    logs = fit(toy_model(), lost(30.0), DPO, looking(log_ratio=20.0), seed=0)
    assert len(logs) == 2
    assert (logs[0].stopped, logs[0].set_aside_log_ratio) == (None, None)
    assert logs[1].stopped is not None
    assert logs[1].stopped.startswith("answers set aside have lost ")
    assert logs[1].stopped.endswith("more than training.stop.log_ratio=20")
    ending = Ending.of(logs, LOOKING)
    assert ending.figures == [{"name": "stopped_after", "value": 2.0, "unit": "optimiser steps"}]
    assert ending.sentences == [f"stopped after step 2: {logs[1].stopped}"]
    assert len(fit(toy_model(), lost(30.0), DPO, looking(log_ratio=40.0), seed=0)) == 4


def test_a_look_at_the_last_step_stops_nothing() -> None:
    logs = fit(toy_model(), lost(30.0), DPO, looking(log_ratio=20.0, every=100), seed=0)
    assert (len(logs), logs[-1].stopped) == (4, None)
    assert logs[-1].set_aside_log_ratio is not None


def log(step: int, accuracy: float | None, loss: float | None) -> StepLog:
    [some] = fit(toy_model(), GROUPS[:1], DPO, SETTINGS.model_copy(update={"epochs": 1}), seed=0)
    return replace(some, step=step, set_aside_accuracy=accuracy, set_aside_loss=loss)


def test_the_best_look_orders_most_pairs_then_has_the_lower_loss_and_is_the_earliest() -> None:
    best = looking(pick="best")
    looks = [log(0, None, None), log(1, 0.5, 0.1), log(3, 0.75, 0.9), log(5, 0.75, 0.8)]
    assert best_step(looks, best) == 5
    assert best_step([*looks, log(7, 0.75, 0.8)], best) == 5
    assert best_step([log(1, None, 0.5), log(3, None, 0.4)], best) == 3  # of answers alone
    assert best_step(looks, looking()) is None
    assert Ending.of(looks, best).recipe == {"picked": 6}


WILD = Training(
    learning_rate=0.05,
    batch_size=2,
    epochs=3,
    checkpoint_every_steps=4,
    dtype="float32",
    stop=Stop(every=2, set_aside=4),
    pick="best",
)
"""At such a rate the last weights are not the best."""


def test_the_weights_of_the_best_look_are_published(tmp_path: Path) -> None:
    held, model = dict[int, PreTrainedModel](), toy_model()

    def keep(log: StepLog) -> None:
        held[log.step] = copy.deepcopy(model)

    logs = fit(
        model,
        GROUPS,
        DPO,
        WILD,
        seed=3,
        session=Session(checkpoint_dir=tmp_path, on_step=keep),
    )
    best = best_step(logs, WILD)
    assert best is not None and best < logs[-1].step
    assert same_bits(model, held[best])
    assert not same_bits(model, held[logs[-1].step])
    assert tmp_path / f"step-{best + 1:08d}" in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) <= 3


class Killed(Exception):
    """Stands for a kill: nothing of fit's runs after it."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kills", [(1,), (5,), (11,), (2, 3, 8)])
def test_a_killed_training_picks_the_same_weights_to_the_bit(
    tmp_path: Path, kills: tuple[int, ...], dtype: str
) -> None:
    settings = WILD.model_copy(update={"dtype": dtype})
    whole, resumed = toy_model(), toy_model()
    session = Session(checkpoint_dir=tmp_path / "whole")
    logs = fit(whole, GROUPS, DPO, settings, seed=3, session=session)
    assert len(logs) == 12
    for kill in kills:

        def killing(log: StepLog, kill: int = kill) -> None:
            if log.step == kill:
                raise Killed

        session = Session(checkpoint_dir=tmp_path / "killed", on_step=killing)
        with pytest.raises(Killed):
            fit(toy_model(), GROUPS, DPO, settings, seed=3, session=session)
    session = Session(checkpoint_dir=tmp_path / "killed")
    again = fit(resumed, GROUPS, DPO, settings, seed=3, session=session)
    assert same_bits(resumed, whole)
    assert without_speed(again) == without_speed(logs)


KILLED_PROCESS = """
import sys, pathlib, torch
from dapflow.tasks.training.fit import Session, fit
from tests.tasks.training.toys import DPO, LOOKING, groups_with_reference, toy_model
torch.set_num_threads(1)  # as conftest.py does
def on_step(log):
    print(log.step, log.stopped is not None, flush=True)
    if log.step == int(sys.argv[2]):
        sys.stdin.read()
session = Session(checkpoint_dir=pathlib.Path(sys.argv[1]), on_step=on_step)
fit(toy_model(), groups_with_reference(12), DPO, LOOKING, seed=3, session=session)
"""


@pytest.mark.parametrize("step", [0, 1])
def test_a_training_killed_with_kill_9_stops_at_the_same_step_with_the_same_bits(
    tmp_path: Path, step: int
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED_PROCESS, str(tmp_path), str(step)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().decode().split() for _ in range(step + 1)]
        assert said == [["0", "False"], ["1", "True"]][: step + 1]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    whole, resumed = toy_model(), toy_model()
    logs = fit(whole, GROUPS, DPO, LOOKING, seed=3)
    assert logs[-1].stopped
    session = Session(checkpoint_dir=tmp_path)
    again = fit(resumed, GROUPS, DPO, LOOKING, seed=3, session=session)
    assert same_bits(resumed, whole)
    assert without_speed(again) == without_speed(logs)
    third = toy_model()  # whose training had stopped in its last checkpoint
    assert without_speed(fit(third, GROUPS, DPO, LOOKING, seed=3, session=session)) == (
        without_speed(logs)
    )
    assert same_bits(third, whole)


def test_settings_that_are_not_used_are_no_part_of_a_version() -> None:
    """The parameters of a training are what they were before there was a rule to stop it."""
    assert not {"stop", "pick"} & set(plain(Training()))
    assert plain(Training(stop=Stop(every=3, set_aside=5))) == plain(Training())
    stopping, picking = Training(stop=Stop(log_ratio=5.0)), Training(pick="best")
    assert len({str(plain(each)) for each in (Training(), stopping, picking)}) == 3


def test_a_loss_without_a_reference_and_a_sum_are_looked_at_too(tmp_path: Path) -> None:
    settings = looking(pick="best")
    for loss in (Loss.of("hinge"), Loss.sum("pairwise_cringe", "nll")):
        session = Session(checkpoint_dir=tmp_path / loss.name)
        [*_, last] = fit(toy_model(), GROUPS, loss, settings, seed=0, session=session)
        assert last.set_aside_loss is not None and last.set_aside_log_ratio is not None

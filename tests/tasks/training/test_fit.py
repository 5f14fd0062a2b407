"""Training on toy models: what is logged, what is refused, and that a killed run ends with the same
bits.
"""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group, epochs, microbatches
from dapflow.tasks.models.packed.logps import packed_token_logps, sequence_logps
from dapflow.tasks.training.fit import Session, fit
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.registry import losses
from dapflow.tasks.training.settings import Training
from tests.helpers import ROOT
from tests.tasks.training.toys import (
    DPO,
    SETTINGS,
    groups_with_reference,
    same_bits,
    toy_groups,
    toy_model,
    without_speed,
)

GROUPS = groups_with_reference()


def test_the_first_loss_of_dpo_is_ln_2_with_dropout_in_the_config() -> None:
    log = fit(toy_model(), GROUPS, DPO, SETTINGS, seed=0)[0]
    assert log.loss == pytest.approx(math.log(2), abs=1e-5)
    assert (log.reward_chosen, log.reward_rejected, log.margin) == pytest.approx(
        (0.0, 0.0, 0.0), abs=1e-3
    )


@pytest.mark.parametrize("name", list(losses()))
def test_every_loss_trains_through_the_same_call(name: str) -> None:
    """The pair's margin rises (for `nll`, the chosen answer's log-probability)."""
    model, groups = toy_model(), groups_with_reference(4)
    logs = fit(model, groups, Loss.of(name), SETTINGS.model_copy(update={"epochs": 8}), seed=0)
    assert logs[-1].loss < logs[0].loss
    if name == "nll":
        assert logs[-1].logp_chosen > logs[0].logp_chosen
    else:
        assert logs[-1].margin > logs[0].margin


def test_microbatches_do_not_change_the_step() -> None:
    """The mean over the batch, not a mean of means: 4 pairs in one forward, one by one, or 3 and 1."""
    tokens = sorted((group.tokens for group in GROUPS[:4]), reverse=True)
    assert len(microbatches(GROUPS[:4], sum(tokens[:3]))) == 2
    settings = SETTINGS.model_copy(update={"epochs": 1})
    norms = [
        fit(
            toy_model(),
            GROUPS[:4],
            Loss.of("ipo"),
            settings.model_copy(update={"tokens_per_microbatch": budget}),
            seed=0,
        )[0].gradient_norm
        for budget in (10_000, 1, sum(tokens[:3]))
    ]
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=1e-4)


def test_one_plain_sgd_like_step_is_the_gradient_of_the_mean_loss() -> None:
    model = toy_model()
    log = fit(
        model, GROUPS[:3], DPO, SETTINGS.model_copy(update={"epochs": 1, "batch_size": 3}), seed=0
    )[0]
    reference = toy_model().eval()
    policy = torch.stack(sequence_logps(reference, GROUPS[:3], packed_token_logps))
    delta = policy - torch.tensor([g.reference for g in GROUPS[:3]])
    loss = -torch.nn.functional.logsigmoid(0.1 * (delta[:, 0] - delta[:, 1])).mean()
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    assert log.gradient_norm == pytest.approx(
        math.sqrt(sum(g.square().sum().item() for g in gradients)), rel=1e-4
    )


def test_every_group_is_seen_once_an_epoch_and_the_seed_decides_the_order() -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 3})
    logs = fit(toy_model(), GROUPS, DPO, settings, seed=0)
    assert [(log.step, log.epoch) for log in logs] == [
        (i, i // 4) for i in range(8)
    ]  # 3 + 3 + 3 + 1 groups, twice
    again, other = toy_model(), toy_model()
    assert without_speed(fit(again, GROUPS, DPO, settings, seed=0)) == without_speed(logs)
    fit(other, GROUPS, DPO, settings, seed=1)
    assert not same_bits(again, other)


class Killed(Exception):
    """Stands for a kill: nothing of fit's runs after it."""


@cache
def whole_run(settings: Training) -> tuple[PreTrainedModel, list[StepLog]]:
    """A run that nobody kills: the model, only to be looked at, and its steps."""
    model = toy_model()
    return model, fit(model, GROUPS, DPO, settings, seed=3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kills", [(0,), (1,), (2,), (3,), (5,), (1, 2, 4), (0, 0, 3, 3)])
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, kills: tuple[int, ...], dtype: str
) -> None:
    settings = SETTINGS.model_copy(update={"dtype": dtype, "schedule": "cosine", "warmup_steps": 2})
    whole, logs = whole_run(settings)
    assert len(logs) == 6
    for kill in kills:

        def killing(log: StepLog, kill: int = kill) -> None:
            if log.step == kill:
                raise Killed

        with pytest.raises(Killed):
            fit(
                toy_model(),
                GROUPS,
                DPO,
                settings,
                seed=3,
                session=Session(checkpoint_dir=tmp_path, on_step=killing),
            )
    resumed = toy_model()
    steps = list[int]()
    resumed_logs = fit(
        resumed,
        GROUPS,
        DPO,
        settings,
        seed=3,
        session=Session(checkpoint_dir=tmp_path, on_step=lambda log: steps.append(log.step)),
    )
    assert steps == list(range(max(kills) // 2 * 2, 6))  # from the last checkpoint on
    assert same_bits(resumed, whole)
    assert without_speed(resumed_logs) == without_speed(logs)


def test_a_truncated_newest_checkpoint_costs_steps_and_no_bits(tmp_path: Path) -> None:
    whole, resumed = toy_model(), toy_model()
    fit(whole, GROUPS, DPO, SETTINGS, seed=3, session=Session(checkpoint_dir=tmp_path))
    file = tmp_path / "step-00000006" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    steps = list[int]()
    fit(
        resumed,
        GROUPS,
        DPO,
        SETTINGS,
        seed=3,
        session=Session(checkpoint_dir=tmp_path, on_step=lambda log: steps.append(log.step)),
    )
    assert steps == [4, 5]
    assert same_bits(resumed, whole)


KILLED_PROCESS = """
import sys, pathlib, torch
from dapflow.tasks.training.fit import Session, fit
from tests.tasks.training.toys import DPO, SETTINGS, groups_with_reference, toy_model
torch.set_num_threads(1)  # as conftest.py does
def on_step(log):
    print(log.step, flush=True)
    if log.step == 3:
        sys.stdin.read()
session = Session(checkpoint_dir=pathlib.Path(sys.argv[1]), on_step=on_step)
fit(toy_model(), groups_with_reference(), DPO, SETTINGS, seed=3, session=session)
"""


def test_a_process_killed_with_kill_9_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    root = ROOT
    command = [sys.executable, "-W", "ignore", "-c", KILLED_PROCESS, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert [int(process.stdout.readline()) for _ in range(4)] == [0, 1, 2, 3]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    whole, resumed = toy_model(), toy_model()
    fit(whole, GROUPS, DPO, SETTINGS, seed=3)
    steps = list[int]()
    fit(
        resumed,
        GROUPS,
        DPO,
        SETTINGS,
        seed=3,
        session=Session(checkpoint_dir=tmp_path, on_step=lambda log: steps.append(log.step)),
    )
    assert steps == [2, 3, 4, 5]
    assert same_bits(resumed, whole)


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    fit(toy_model(), GROUPS, DPO, SETTINGS, seed=3, session=Session(checkpoint_dir=tmp_path))
    for groups, loss, settings, seed in [
        (GROUPS, DPO, SETTINGS, 4),
        (GROUPS[:9], DPO, SETTINGS, 3),
        (GROUPS, Loss.of("ipo"), SETTINGS, 3),
        (GROUPS, DPO, SETTINGS.model_copy(update={"learning_rate": 1e-4}), 3),
    ]:
        with pytest.raises(UserError, match="are of another run"):
            fit(
                toy_model(),
                groups,
                loss,
                settings,
                seed=seed,
                session=Session(checkpoint_dir=tmp_path),
            )


def test_a_loss_that_is_not_finite_names_its_rows_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    broken = [*GROUPS[:9], replace(GROUPS[9], reference=(math.nan, 0.0))]
    settings = SETTINGS.model_copy(update={"batch_size": 1, "checkpoint_every_steps": 1})
    with pytest.raises(UserError, match=r"not finite at step \d+; .*: pair-9\."):
        fit(toy_model(), broken, DPO, settings, seed=2, session=Session(checkpoint_dir=tmp_path))
    assert list(tmp_path.glob("step-*"))


def test_chosen_answers_that_lose_likelihood_are_reported() -> None:
    groups = [replace(g, reference=tuple(r + 30 for r in g.reference or ())) for g in GROUPS]
    log = fit(toy_model(), groups, DPO, SETTINGS, seed=0)[0]
    assert log.warnings == (
        "likelihood displacement: chosen answers have lost 30.0 nats against the reference",
    )
    assert fit(toy_model(), GROUPS, DPO, SETTINGS, seed=0)[0].warnings == ()


def test_without_a_reference_chosen_answers_that_become_unlikely_are_noticed_too() -> None:
    one, two, three = ((5, 6, 7), (8, 9, 10), (11, 12, 13))
    pairs = [
        (one, two),
        *[(three, one)] * 5,
    ]  # what the first step calls better, all others call worse
    groups = [Group(prompt=(2, 3), answers=pair, row_ids=(str(n),)) for n, pair in enumerate(pairs)]
    seed = next(seed for seed in range(50) if next(epochs(len(groups), 1, 1, seed))[1] == [0])
    settings = SETTINGS.model_copy(
        update={"displacement_alarm_nats": 1.0, "epochs": 8, "batch_size": 1}
    )
    assert (
        fit(toy_model(), groups[1:], Loss.of("hinge", gamma=0.02), settings, seed=seed)[-1].warnings
        == ()
    )
    [sentence] = fit(toy_model(), groups, Loss.of("hinge", gamma=0.02), settings, seed=seed)[
        -1
    ].warnings
    assert sentence.startswith(
        "likelihood displacement: chosen answers have lost"
    ) and sentence.endswith("nats since the first step")


def test_cringe_is_a_mean_over_the_tokens_of_the_batch() -> None:
    groups = [replace(g, reference=None) for g in GROUPS[:4]]
    settings, model = (
        SETTINGS.model_copy(update={"epochs": 1, "tokens_per_microbatch": 1}),
        toy_model(),
    )
    loss = fit(model, groups, Loss.of("cringe", alpha=0.0), settings, seed=0)[0].loss
    tokens = sum(len(answer) for group in groups for answer in group.answers)
    nll = -sum(
        logps[0].item() for logps in sequence_logps(toy_model().eval(), groups, packed_token_logps)
    )
    assert loss == pytest.approx(nll / tokens, rel=1e-5)


def test_without_a_reference_there_are_no_implied_rewards() -> None:
    groups = [replace(g, reference=None) for g in GROUPS[:4]]
    log = fit(toy_model(), groups, Loss.of("hinge"), SETTINGS, seed=0)[0]
    assert (log.reward_chosen, log.reward_rejected) == (None, None)
    assert log.margin == pytest.approx(log.logp_chosen - (log.logp_rejected or 0.0), abs=1e-4)


def test_identical_answers_have_no_margin() -> None:
    model = toy_model()
    same = [Group(prompt=(5, 6), answers=((7, 1), (7, 1)), row_ids=("a",), reference=(-3.0, -3.0))]
    log = fit(model, same, DPO, SETTINGS.model_copy(update={"weight_decay": 0.0}), seed=0)[0]
    assert log.margin == pytest.approx(0.0, abs=1e-5)
    assert log.gradient_norm == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("groups", "loss", "message"),
    [
        ([], DPO, "nothing to train on"),
        ([replace(GROUPS[0], reference=None)], DPO, "needs a reference, but pair-0"),
        (toy_groups(1, answers=1), Loss.of("hinge"), "needs 2 answers, but pair-0 has 1"),
    ],
)
def test_groups_that_lack_what_the_loss_needs_are_refused_by_name(
    groups: list[Group], loss: Loss, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(toy_model(), groups, loss, SETTINGS, seed=0)

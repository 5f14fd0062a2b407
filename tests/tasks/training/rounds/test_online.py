"""Rounds on a real toy policy: stopped anywhere they end with the same weights and rows, whoever
judges. Run: pytest tests/tasks/training/rounds/test_online.py
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from dapflow.storage import Lake, ModelRef, UserError
from dapflow.tasks.judging.judges.program import Program
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.pairing.pairs import Pairing
from dapflow.tasks.prompts.load import PROMPTS_FILE, load_prompts
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.step import use_lake
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.rounds import learner
from dapflow.tasks.training.rounds.online import train_online
from dapflow.tasks.training.rounds.rewards import capped
from dapflow.tasks.training.settings import Rounds, Training
from tests.helpers.lakes import empty_lake

pytestmark = pytest.mark.usefixtures("prefect_server")
ROUNDS = 4


PPO = Loss.of("ppo")
REINFORCE = Loss.of("reinforce")
DPO = Loss.of("sigmoid_norm")


@flow
def train(
    by: Program, loss: Loss = DPO, minibatches: int = 1, max_lag: int | None = None
) -> ModelRef:
    source = find_source("shipped", PROMPTS_FILE)
    policy, prompts = (
        register_model("toy", resolve("toy").digest),
        load_prompts(source.name, source.digest, "train", 16, 0, 6),
    )
    return train_online(
        policy=policy,
        reference=policy,
        prompts=prompts,
        by=by,
        model=None,
        baseline=None,
        sampling=Sampling(n=4, max_tokens=12),
        rounds=Rounds(count=ROUNDS, prompts=4, minibatches=minibatches),
        lists=loss != DPO,
        pairing=Pairing(rule="first-round"),
        loss=loss,
        training=Training(learning_rate=2e-5, checkpoint_every_steps=2, max_lag=max_lag),
        seed=3,
    )


def rows_of(lake: Lake, policy: ModelRef, noun: str) -> list[dict[str, Any]]:
    timed = (
        "AND name NOT IN ('tokens_per_second', 'peak_memory_gib', 'model_bytes', 'models_in_memory')"
        if noun == "metrics"
        else ""
    )
    return lake.rows(
        f"SELECT * FROM {noun} WHERE version = ? {timed} ORDER BY id", [policy.version]
    )


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> Iterator[Callable[[str, int], tuple[Lake, ModelRef]]]:
    """Rounds that nothing stops, of a loss and so many minibatches, made once: a lake, only to be
    read, and the policy.
    """
    with ExitStack() as lakes:

        @cache
        def run(loss: str, minibatches: int) -> tuple[Lake, ModelRef]:
            root = empty_lake(tmp_path_factory.mktemp("whole"))
            with use_lake(lakes.enter_context(Lake(root))) as lake:
                return lake, train(Program.of_word("shorter"), Loss.of(loss), minibatches)

        yield run


@pytest.mark.parametrize(
    ("loss", "minibatches"),
    [(DPO, 1), pytest.param(REINFORCE, 1, marks=pytest.mark.slow), (PPO, 2)],
    ids=["pairs", "rewards", "values"],
)
def test_rounds_that_were_stopped_end_with_the_same_weights_and_rows(
    lake: Lake,
    whole: Callable[[str, int], tuple[Lake, ModelRef]],
    loss: Loss,
    minibatches: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, policy = whole(loss.name, minibatches)
    step, taken = learner.train_step, list[int]()

    def breaks(*arguments: Any) -> Any:
        taken.append(1)
        if (
            len(taken) == ROUNDS * minibatches
        ):  # the rows of the last round are in the lake, and the last checkpoint is of the second
            raise RuntimeError("the power is gone")
        return step(*arguments)

    with use_lake(lake):
        with monkeypatch.context() as patched:
            patched.setattr(learner, "train_step", breaks)
            with pytest.raises(RuntimeError, match="power"):
                train(Program.of_word("shorter"), loss, minibatches)
        assert rows_of(lake, policy, "models") == []
        assert train(Program.of_word("shorter"), loss, minibatches) == policy
    for noun in (
        "models",
        "completions",
        "verdicts",
        "pairs" if loss == DPO else "acceptances",
        "metrics",
    ):
        found = rows_of(made, policy, noun)
        assert found, noun
        assert found == rows_of(lake, policy, noun), (
            noun
        )  # models by their digests: equal to the bit


def test_ppo_tells_of_each_step_how_it_goes_and_how_old_its_samples_were(
    whole: Callable[[str, int], tuple[Lake, ModelRef]],
) -> None:
    lake, policy = whole(PPO.name, 2)
    steps = 2 * ROUNDS
    rows = rows_of(lake, policy, "metrics")
    curves = {
        name: [row["value"] for row in rows if row["name"] == name]
        for name in {row["name"] for row in rows}
    }
    wanted = {
        "reward",
        "kl",
        "value_loss",
        "explained_variance",
        "clip_fraction",
        "approx_kl",
        "entropy",
    }
    assert {name for name in wanted if len(curves.get(name, [])) == steps} == wanted
    assert curves["approx_kl"][::2] == pytest.approx(
        [0.0] * ROUNDS, abs=1e-6
    )  # the first step of a round starts from who sampled
    assert min(curves["approx_kl"][1::2]) > 1e-9
    assert curves["clip_fraction"][::2] == [0.0] * ROUNDS
    assert curves["explained_variance"][:2] == pytest.approx([0.0] * 2, abs=1e-6)  # values of zero
    assert min(curves["value_loss"]) > 0
    assert (curves["max_lag"], curves["mean_lag"]) == ([1.0], [0.5])


def test_rounds_of_fewer_prompts_than_minibatches_tell_of_the_steps_that_they_took(
    lake: Lake,
) -> None:
    with use_lake(lake):
        policy = train(
            Program.of_word("shorter"), PPO, 8, max_lag=3
        )  # four prompts a round, in the second three: as many steps
        with pytest.raises(UserError, match="the oldest would be 3 old"):
            train(Program.of_word("shorter"), PPO, 8, max_lag=2)
    rows = rows_of(lake, policy, "metrics")
    steps = {row["step"] for row in rows if row["name"] == "loss"}
    assert steps == {
        8 * number + place for number, taken in enumerate((4, 3, 4, 4)) for place in range(taken)
    }
    lags = {row["name"]: row["value"] for row in rows if row["name"].endswith("_lag")}
    assert lags == {"mean_lag": pytest.approx((3 * 6 + 3) / 15), "max_lag": 3.0}


def test_what_was_cut_off_gets_no_more_than_the_worst_answer_to_its_prompt_that_ended(
    lake: Lake, tmp_path: Path
) -> None:
    judge = tmp_path / "mine.py"
    judge.write_text("def long(prompt, completion):\n    return float(len(completion))\n")
    with use_lake(lake):
        policy = train(Program.of_word(f"{judge}:long"), REINFORCE)
    scores = {row["completion_id"]: row["score"] for row in rows_of(lake, policy, "verdicts")}
    completions = rows_of(lake, policy, "completions")
    rewards = {
        row["completion_id"]: row["reward"]
        for row in rows_of(lake, policy, "acceptances")
        if row["accepted"]
    }
    held = 0
    for number in range(ROUNDS):  # 4 prompts, 4 answers to each
        own = [row for row in completions if int(row["id"].rsplit("-")[-1]) // 16 == number]
        wanted = capped(own, scores)
        assert {row["id"]: rewards[row["id"]] for row in own if row["id"] in rewards} == wanted
        held += sum(reward < scores[name] for name, reward in wanted.items())
    assert held
    shares = [row for row in rows_of(lake, policy, "metrics") if row["name"] == "cut_off_variance"]
    of_rounds = [row["value"] for row in shares if row["step"] is not None]
    [of_training] = [row["value"] for row in shares if row["step"] is None]
    assert len(of_rounds) == ROUNDS  # a step each
    assert of_training == pytest.approx(sum(of_rounds) / ROUNDS)
    assert max(of_rounds) > 0


def test_a_program_that_compares_judges_rounds_in_both_orders(lake: Lake, tmp_path: Path) -> None:
    judge = tmp_path / "mine.py"
    judge.write_text(
        "def longer(prompt, first, second):\n    return 0.5 + 0.5 * ((len(first) > len(second)) - (len(first) < len(second)))\n"
    )
    with use_lake(lake):
        policy = train(Program.of_word(f"{judge}:longer"))
    pairs = [row for row in rows_of(lake, policy, "pairs") if row["dropped"] is None]
    assert pairs
    assert all(
        len(row["chosen"]) > len(row["rejected"])
        and row["source"] == "compared"
        and row["margin"] == 1.0
        for row in pairs
    )
    verdicts = [
        row for row in rows_of(lake, policy, "verdicts") if row["outcome"] in ("win", "lose")
    ]
    assert verdicts
    assert all({row["forward"], row["backward"]} == {0.0, 1.0} for row in verdicts)

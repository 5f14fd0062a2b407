"""What learns in rounds, on toy models: the value model's layout, what it learns, and going on to
the bit. Run: pytest tests/tasks/training/rounds/test_learner.py
"""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dapflow.storage import UserError
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.training.fit import fit
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer_step import Trainer
from dapflow.tasks.training.rounds.critic import Critic, Values
from dapflow.tasks.training.rounds.learner import Learner
from dapflow.tasks.training.settings import Rounds, Training
from tests.tasks.training.toys import CONFIGS, toy_groups, toy_model

TRAINING = Training(learning_rate=1e-3, dtype="float32", tokens_per_microbatch=30)
ROUNDS = Rounds(count=4, epochs=2, minibatches=2)


def rewarded(seed: int, count: int = 6) -> list[Group]:
    """Groups of random answers, whose reward is whether they begin with a token below 49, the
    middle of the vocabulary.
    """
    return [
        replace(group, rewards=tuple(float(answer[0] < 49) for answer in group.answers))
        for group in toy_groups(count, seed, answer=(3, 8))
    ]


def learner(training: Training = TRAINING, rounds: Rounds = ROUNDS) -> Learner:
    trainer = Trainer.alone(toy_model(), Loss.of("ppo"), training, seed=1)
    return Learner(trainer, rounds, toy_model().eval(), Critic(toy_model(), training, seed=1))


def told(logs: list[StepLog]) -> list[StepLog]:
    return [replace(log, tokens_per_second=0.0, peak_memory_gib=0.0) for log in logs]


@pytest.mark.parametrize("config", ["llama", "gpt-neox"])
def test_values_are_the_same_packed_and_one_by_one_and_zero_at_first(config: str) -> None:
    values, groups = Values(toy_model(CONFIGS[config]).eval()), toy_groups(3)
    assert values(groups).tolist() == [0.0] * sum(
        len(answer) for group in groups for answer in group.answers
    )
    torch.nn.init.constant_(values.head.weight, 0.1)
    apart = torch.cat([values.head(values._alone(group))[:, 0] for group in groups])
    assert_close(values(groups), apart, atol=1e-4, rtol=1e-4)


def test_a_value_does_not_know_the_token_that_is_sampled_next() -> None:
    values, [group] = Values(toy_model().eval()), toy_groups(1, answers=1, answer=(5, 5))
    torch.nn.init.constant_(values.head.weight, 0.1)
    other = replace(group, answers=((*group.answers[0][:2], 7, *group.answers[0][3:]),))
    before, after = values([group]), values([other])
    assert_close(before[:3], after[:3])
    assert not torch.allclose(before[3:], after[3:])


def test_the_value_model_comes_to_explain_the_rewards() -> None:
    # what is to be known is the first token: after it the return is certain
    one = learner(rounds=Rounds(count=40, epochs=2, minibatches=2))
    logs = [log for number in range(40) for log in one.learn(rewarded(number % 4), number)]
    explained = [log.explained_variance or 0.0 for log in logs]
    assert explained[0] == pytest.approx(0.0, abs=1e-6)
    assert explained[-1] > 0.3
    assert (logs[-1].value_loss or 0.0) < (logs[0].value_loss or 0.0)


def test_the_policy_moves_towards_what_is_rewarded() -> None:
    one, groups = learner(), rewarded(0)
    first, second, *_ = one.learn(groups, 0)
    assert (first.clip_fraction, first.approx_kl) == (0.0, pytest.approx(0.0, abs=1e-6))
    assert (second.approx_kl or 0.0) > 0
    rewards = [reward for group in groups for reward in group.rewards or ()]
    assert ((first.reward or 0.0) + (second.reward or 0.0)) / 2 == pytest.approx(
        sum(rewards) / len(rewards)
    )  # halves of the round
    assert margin(one, groups) > margin(learner(), groups)


def margin(one: Learner, groups: list[Group]) -> float:
    """log pi of the rewarded answers, less that of the others."""
    total = 0.0
    for group, logps in zip(groups, reference_logps(one.model, groups), strict=True):
        total += sum(
            value * (1 if reward else -1)
            for value, reward in zip(logps, group.rewards or (), strict=True)
        )
    return total


def test_a_learner_goes_on_from_its_state_to_the_bit() -> None:
    whole, stopped = learner(), learner()
    logs = [log for number in range(4) for log in whole.learn(rewarded(number), number)]
    for number in range(2):
        stopped.learn(rewarded(number), number)
    kept = {name: tensor.clone() for name, tensor in stopped.state().items()}
    resumed = learner()
    resumed.load(kept)
    after = [log for number in (2, 3) for log in resumed.learn(rewarded(number), number)]
    assert told(after) == told(logs[8:])
    assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in whole.state().items())
    assert any(name.startswith("critic/") for name in kept)
    assert kept["seen"][0] == 24  # scores of two rounds, by whose scale the third is whitened


@pytest.mark.parametrize("parameters", ["lora", "head"])
def test_of_the_value_model_the_same_is_trained_as_of_the_policy(parameters: str) -> None:
    training = TRAINING.model_copy(update={"parameters": parameters})
    critic = Critic(toy_model(), training, seed=1)
    trained = [name for name in critic.optimizer.state() if name.startswith("master/")]
    assert all("lora" in name or name.startswith("master/head.") for name in trained)
    assert {"master/head.weight", "master/head.bias"} <= set(trained)


def test_a_loss_that_needs_values_is_refused_outside_rounds() -> None:
    groups = [replace(group, reference=(-1.0, -1.0)) for group in toy_groups(2)]
    with pytest.raises(UserError, match="needs a value model, which only rounds train"):
        fit(toy_model(), groups, Loss.of("ppo"), TRAINING, seed=0)

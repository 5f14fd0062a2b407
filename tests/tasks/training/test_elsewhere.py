"""What a GPU needs, checked without one: nothing on it meets what is on the CPU, and the values are
the CPU's.

Run: pytest tests/tasks/training/test_elsewhere.py
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from dapflow.tasks.evaluation.divergence import token_divergences
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.names import Loaded, load_own, resolve
from dapflow.tasks.models.packed import attention
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.features import answer_features, packed_features, text_group
from dapflow.tasks.models.packed.logps import packed_token_logps, pick_scorer, reference_logps
from dapflow.tasks.models.parameters import trainable
from dapflow.tasks.models.probe import take_probe
from dapflow.tasks.models.ranker import Comparison, Ranker
from dapflow.tasks.models.reward_head import Backbone, Scorer
from dapflow.tasks.sampling.engines.base import Request, Sampling
from dapflow.tasks.sampling.engines.transformers import TransformersEngine
from dapflow.tasks.training.fit import Session, fit
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.registry import losses
from dapflow.tasks.training.optimizer_step import Trainer
from dapflow.tasks.training.reward.backbone import Labelled
from dapflow.tasks.training.reward.pointwise import Divided, fit_head, tuned_scorer
from dapflow.tasks.training.rounds.critic import Critic
from dapflow.tasks.training.rounds.learner import Learner
from dapflow.tasks.training.settings import Rounds, Training
from tests.helpers.elsewhere import elsewhere
from tests.tasks.training.toys import groups_with_reference, toy_groups, toy_model

KINDS = ("sigmoid_norm", "nll", "ppo")  # losses on pairs, on answers, and on values
WORDS = ["red", "green", "blue", "tall", "short", "warm", "cold", "wet", "dry", "old", "new", "far"]


def on(device: torch.device | str, model: PreTrainedModel) -> PreTrainedModel:
    model.to(device)  # type: ignore[arg-type]
    model.tie_weights()
    return model


def moved(loaded: Loaded, device: torch.device) -> Loaded:
    return Loaded(model=on(device, loaded.model), tokenizer=loaded.tokenizer)


def with_experience_on(device: torch.device, group: Group) -> Group:
    """As a round of PPO has measured it: where the policy lies."""
    past = group.experience
    assert past is not None
    there = {
        name: getattr(past, name).to(device)
        for name in ("logps", "values", "advantages", "returns")
    }
    return replace(group, experience=replace(past, **there))


def as_a_gpu_lays_it_out(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
    """Attention whose result lies in memory as a fused kernel's: heads after positions."""
    return (
        scaled_dot_product_attention(*tensors, **options)
        .transpose(1, 2)
        .contiguous()
        .transpose(1, 2)
    )


@pytest.fixture
def toy() -> Loaded:
    return load_own(resolve("toy").path)


def test_the_device_is_as_strict_as_a_gpu() -> None:
    with elsewhere() as device:
        there = torch.arange(3.0, device=device)
        assert (there + 1).tolist() == [1, 2, 3]
        assert (there.cpu() + torch.ones(3)).tolist() == [1, 2, 3]
        for mixed in (
            lambda: there + torch.ones(3),
            lambda: torch.ones(3)[there.long()],
            lambda: there @ torch.ones(3),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()


def test_a_reward_models_head(toy: Loaded) -> None:
    backbone = Backbone(model=toy.model, tokenizer=toy.tokenizer)
    groups = [
        text_group(toy.tokenizer, "Why?", (f"It is {word}.", f"No idea {word}"), word)
        for word in WORDS
    ]

    def scores() -> list[float]:
        features = torch.stack(answer_features(backbone.model, groups, 1)).double()
        head = fit_head(features, torch.zeros(len(groups), dtype=torch.float64)).head
        return torch.cat(Scorer(backbone, head, 1).scores(groups)).tolist()

    before = scores()
    with elsewhere() as device:
        moved(toy, device)
        assert scores() == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("parameters", ["lora", "full"])
def test_a_reward_models_backbone(toy: Loaded, parameters: str) -> None:
    settings = RewardModel.model_validate(
        {"parameters": parameters, "batch_size": 4, "learning_rate": 1e-3}
    )
    groups = [
        text_group(toy.tokenizer, "Why?", (f"It is {word}.", f"No idea {word}"), word)
        for word in WORDS
    ]
    pairs = [Labelled(group=group, margin=0.1) for group in groups]

    def features(loaded: Loaded) -> list[list[float]]:
        backbone = Backbone(model=loaded.model, tokenizer=loaded.tokenizer)
        tuned = tuned_scorer(backbone, Divided(learned=pairs, unseen=pairs[:4]), settings, seed=0)
        return [one.flatten().tolist() for one in answer_features(tuned.backbone.model, groups, 0)]

    before = features(toy)
    with elsewhere() as device:
        for here, there in zip(before, features(moved(toy, device)), strict=True):
            assert there == pytest.approx(here, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in losses()]
    + [
        pytest.param(name, "bfloat16", marks=() if name in KINDS else pytest.mark.slow)
        for name in losses()
    ],
)
def test_every_loss(name: str, dtype: str) -> None:
    settings = Training.model_validate(
        {
            "learning_rate": 1e-3,
            "batch_size": 4,
            "epochs": 2,
            "tokens_per_microbatch": 30,
            "dtype": dtype,
        }
    )
    # At the reference the last bit decides whether DPOP's penalty, 50 nats a nat, has a gradient.
    loss = Loss.of(name, lambda_=1.0) if name == "dpop" else Loss.of(name)
    groups = groups_with_reference(8)
    before = fit(toy_model(), groups, loss, settings, seed=0)
    with elsewhere() as device:
        after = fit(
            on(device, toy_model()),
            [with_experience_on(device, group) for group in groups],
            loss,
            settings,
            seed=0,
        )
    assert [log.loss for log in after] == pytest.approx(
        [log.loss for log in before], rel=1e-3 if dtype == "float32" and name != "dpop" else 0.1
    )


@pytest.mark.parametrize(
    "way",
    [
        {"parameters": "lora"},
        {"parameters": "head"},
        {"gradient_checkpointing": True},
        {"weights": "master"},
    ],
    ids=str,
)
def test_every_way_to_train(way: dict[str, Any], tmp_path: Path) -> None:
    settings = Training.model_validate(
        {"learning_rate": 1e-3, "batch_size": 4, "dtype": "float32", "checkpoint_every_steps": 1}
        | way
    )
    groups, loss = groups_with_reference(8), Loss.of("sigmoid_norm")

    def losses(model: PreTrainedModel, folder: Path) -> list[float]:
        model = trainable(model, settings.parameters, settings.lora_rank, seed=0)
        fit(
            model,
            groups[:4],
            loss,
            settings,
            seed=0,
            session=Session(checkpoint_dir=folder / "half"),
        )
        fit(model, groups, loss, settings, seed=0, session=Session(checkpoint_dir=folder))
        return [
            log.loss
            for log in fit(
                model, groups, loss, settings, seed=0, session=Session(checkpoint_dir=folder)
            )
        ]  # from the last checkpoint

    before = losses(toy_model(), tmp_path / "here")
    with elsewhere() as device:
        assert losses(on(device, toy_model()), tmp_path / "there") == pytest.approx(
            before, rel=1e-3
        )


def test_packed_rows_do_not_fall_back_to_padded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = toy_groups(3)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", as_a_gpu_lays_it_out)
    before = list(reference_logps(toy_model(), groups))
    with elsewhere() as device:
        model = on(device, toy_model().eval())
        assert pick_scorer(model) is packed_token_logps
        for here, there in zip(before, reference_logps(model, groups), strict=True):
            assert there == pytest.approx(here, abs=1e-4)
        assert len(packed_features(model, groups, 1)) == 6


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=12),
        Sampling(max_tokens=12, top_p=0.9, repetition_penalty=1.2, stop=("e",)),
    ],
)
def test_samples(toy: Loaded, sampling: Sampling) -> None:
    def sampled() -> list[list[int]]:
        requests = [
            Request(prompt_id=str(n), prompt_token_ids=(5 + n, 9, 11), seeds=tuple(range(n + 2)))
            for n in range(3)
        ]
        found = TransformersEngine(toy, max_rows=4).generate(requests, sampling)
        return [
            list(one.token_ids)
            for one in sorted(found, key=lambda one: (one.prompt_id, one.sample))
        ]

    before = sampled()
    with elsewhere() as device:
        moved(toy, device)
        assert sampled() == before


@pytest.mark.parametrize("name", ["ppo", "reinforce", "sigmoid_norm"])
def test_rounds(name: str) -> None:
    loss, training, rounds = (
        Loss.of(name),
        Training(learning_rate=1e-3, dtype="float32"),
        Rounds(count=2, minibatches=2),
    )

    def learned(device: torch.device | str) -> list[float]:
        critic = Critic(on(device, toy_model()), training, seed=0) if loss.needs_values else None
        trainer = Trainer.alone(on(device, toy_model()), loss, training, seed=0)
        learner = Learner(trainer, rounds, on(device, toy_model().eval()), critic)
        state, logs = learner.state(), []
        for number in range(2):
            logs += learner.learn(
                [replace(group, rewards=(1.0, -1.0)) for group in toy_groups(4)], number
            )
        learner.load({name: tensor.cpu().clone() for name, tensor in state.items()})
        return [log.loss for log in logs]

    before = learned("cpu")
    with elsewhere() as device:
        assert learned(device) == pytest.approx(before, abs=1e-3)


def test_what_is_measured_of_a_policy(toy: Loaded) -> None:
    other = load_own(resolve("toy").path)
    comparison = [Comparison("Why?", "Because.", "No idea.", "row", 1.0)]
    before = take_probe(toy.model)[1], Ranker(toy).compare(comparison)[0].probability
    with elsewhere() as device:
        moved(toy, device), moved(other, device)
        assert take_probe(toy.model)[1] == pytest.approx(before[0], abs=1e-4)
        assert Ranker(toy).compare(comparison)[0].probability == pytest.approx(before[1], abs=1e-4)
        assert token_divergences(toy.model, other.model, (5, 6), (7, 8)).tolist() == pytest.approx(
            [0.0, 0.0], abs=1e-6
        )

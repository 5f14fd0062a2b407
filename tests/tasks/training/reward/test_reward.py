"""Reward models: the head is the convex optimum, margins follow the tables, and what was trained
comes back from disk as it was.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dapflow.storage import UserError
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.features import (
    answer_features,
    packed_features,
    padded_features,
    text_group,
)
from dapflow.tasks.models.reward_head import Backbone, Head, Scorer, load_backbone
from dapflow.tasks.training.reward.backbone import Labelled, save_backbone, tune
from dapflow.tasks.training.reward.pointwise import fit_head
from dapflow.tasks.training.settings import MARGINS

PAIRS = [
    ("Why?", f"Because it is {word}.", f"No {n} idea {word}")
    for n, word in enumerate(
        ["red", "green", "blue", "tall", "short", "warm", "cold", "wet", "dry", "old", "new", "far"]
    )
]


@pytest.fixture(scope="module")
def toy() -> Backbone:
    loaded = load(resolve("toy").path)
    return Backbone(model=loaded.model, tokenizer=loaded.tokenizer)


def groups(toy: Backbone):  # type: ignore[no-untyped-def]
    return [
        text_group(toy.tokenizer, prompt, (chosen, rejected), str(n))
        for n, (prompt, chosen, rejected) in enumerate(PAIRS)
    ]


def labelled(toy: Backbone) -> list[Labelled]:
    return [
        Labelled(group=group, margin=0.1 * n, certain=1 - 0.05 * n)
        for n, group in enumerate(groups(toy))
    ]


def untaught(toy: Backbone) -> Scorer:
    """With a head that says the same of all answers."""
    width = toy.model.config.hidden_size
    return Scorer(toy, Head(weight=torch.zeros(width, dtype=torch.float64), bias=0.0), 0)


def test_a_planted_direction_is_found() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.tensor([2.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    features = torch.randn(400, 2, 4, generator=rng, dtype=torch.float64)
    swap = (features @ truth)[:, 0] < (features @ truth)[:, 1]
    features[swap] = features[swap].flip(1)
    head = fit_head(features, torch.zeros(400, dtype=torch.float64)).head
    assert torch.cosine_similarity(head.weight, truth, dim=0) > 0.99
    assert float(head.scores(features).mean()) == pytest.approx(0, abs=1e-9)


def test_a_margin_asks_for_a_larger_difference() -> None:
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(60, 2, 3, generator=rng, dtype=torch.float64)
    features[:, 0, 0] += 1.0
    plain = fit_head(features, torch.zeros(60, dtype=torch.float64)).head.weight
    wide = fit_head(features, torch.full((60,), 3.0, dtype=torch.float64)).head.weight
    assert wide[0] > plain[0] > 0
    assert MARGINS["small"] == {
        "significantly": 1.0,
        "better": 2 / 3,
        "slightly": 1 / 3,
        "negligible": 0.0,
    }
    assert MARGINS["large"] == {
        "significantly": 3.0,
        "better": 2.0,
        "slightly": 1.0,
        "negligible": 0.0,
    }


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="at least 10 labelled pairs, there are 3"):
        fit_head(torch.zeros(3, 2, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_packed_and_padded_features_are_equal(toy: Backbone, layers: int) -> None:
    with torch.no_grad():
        packed, padded = (
            packed_features(toy.model, groups(toy), layers),
            padded_features(toy.model, groups(toy), layers),
        )
    assert torch.allclose(packed, padded, atol=1e-5)


def test_the_state_after_a_layer_is_that_of_transformers(toy: Backbone) -> None:
    [group] = groups(toy)[:1]
    ids = torch.tensor([group.prompt + group.answers[0][:-1]])
    hidden = toy.model(input_ids=ids, output_hidden_states=True).hidden_states[1]
    expected = hidden[0, len(group.prompt) :].mean(dim=0)
    assert torch.allclose(answer_features(toy.model, [group], 1)[0][0], expected, atol=1e-5)


def test_a_layer_that_is_not_there_is_named(toy: Backbone) -> None:
    with pytest.raises(UserError, match=r"layer 9.*backbone has 2"):
        answer_features(toy.model, groups(toy), 9)


@pytest.mark.parametrize("parameters", ["lora", "full"])
def test_a_tuned_backbone_learns_its_pairs_and_comes_back_from_disk(
    toy: Backbone, parameters: str, tmp_path: Path
) -> None:
    settings = RewardModel(parameters=parameters, epochs=6, learning_rate=5e-3, batch_size=4)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in toy.model.state_dict().items()}
    tuned = tune(untaught(toy), labelled(toy), settings, seed=0).backbone
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in toy.model.state_dict().items()
    )  # a copy was trained
    features = torch.stack(answer_features(tuned.model, groups(toy), 0))
    assert not torch.allclose(features, torch.stack(answer_features(toy.model, groups(toy), 0)))
    save_backbone(tmp_path, tuned, parameters)
    again = load_backbone(tmp_path, load(resolve("toy").path), parameters)
    assert torch.equal(torch.stack(answer_features(again.model, groups(toy), 0)), features)


class Killed(Exception):
    """Stands for a kill: nothing of tune's runs after it."""


@pytest.mark.parametrize("parameters", ["lora", "full"])
@pytest.mark.parametrize(("kills", "left"), [((10,), 60), ((21,), 40), ((35, 60), 20)])
def test_a_killed_tuning_ends_with_the_bits_of_one_that_was_not(
    toy: Backbone, parameters: str, kills: tuple[int, ...], left: int, tmp_path: Path
) -> None:
    """12 pairs, two a step, 10 epochs: 60 steps, a checkpoint every 20."""
    settings = RewardModel(parameters=parameters, epochs=10, learning_rate=5e-3, batch_size=2)  # type: ignore[arg-type]
    whole = tune(untaught(toy), labelled(toy), settings, seed=0)
    steps = list[int]()

    def killing(at: int) -> Callable[[int], None]:
        def step(_: int) -> None:
            steps.append(1)
            if sum(steps) == at:
                raise Killed

        return step

    for kill in kills:
        with pytest.raises(Killed):
            tune(
                untaught(toy),
                labelled(toy),
                settings,
                seed=0,
                checkpoint_dir=tmp_path,
                on_pairs=killing(kill),
            )
    steps.clear()
    resumed = tune(
        untaught(toy),
        labelled(toy),
        settings,
        seed=0,
        checkpoint_dir=tmp_path,
        on_pairs=killing(-1),
    )
    assert len(steps) == left
    assert torch.equal(whole.head.weight, resumed.head.weight)
    for one, other in zip(
        whole.backbone.model.parameters(), resumed.backbone.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_soft_labels_of_certainty_are_hard_labels_and_those_of_a_half_say_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    features, margins = (
        torch.randn(24, 2, 5, generator=random, dtype=torch.float64),
        torch.zeros(24, dtype=torch.float64),
    )
    hard = fit_head(features, margins).head.weight
    certain = fit_head(features, margins, torch.ones(24, dtype=torch.float64)).head.weight
    assert torch.equal(hard, certain)
    half = torch.full((24,), 0.5, dtype=torch.float64)
    assert fit_head(features, margins, half).head.weight.abs().max() < 1e-9
    surely_wrong = fit_head(features, margins, torch.zeros(24, dtype=torch.float64))
    torch.testing.assert_close(
        surely_wrong.head.weight, fit_head(features.flip(1), margins).head.weight
    )

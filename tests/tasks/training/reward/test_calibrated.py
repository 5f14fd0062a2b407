"""A reward model's score is log-odds in fact: on fresh pairs of a planted Bradley-Terry world, with
a head alone and with a backbone that was trained under it.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from dapflow.storage import UserError
from dapflow.tasks.calibration import slope_interval, slope_of
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.features import text_group
from dapflow.tasks.models.reward_head import Backbone, Head, Scorer
from dapflow.tasks.training.reward.backbone import Labelled
from dapflow.tasks.training.reward.figures import figures_of_test
from dapflow.tasks.training.reward.pointwise import (
    LEAST_SCALE,
    Divided,
    calibrated,
    divided,
    fit_head,
    fitted_scorer,
    tuned_scorer,
)

WORDS = [
    "red",
    "green",
    "blue",
    "tall",
    "short",
    "warm",
    "cold",
    "wet",
    "dry",
    "old",
    "new",
    "far",
    "near",
    "soft",
    "hard",
    "fast",
]
_SPREAD = 1.5  # of an answer's reward, in log-odds


@pytest.fixture(scope="module")
def toy() -> Backbone:
    loaded = load(resolve("toy").path)
    return Backbone(model=loaded.model, tokenizer=loaded.tokenizer)


def world(toy: Backbone, pairs: int, seed: int) -> tuple[list[Labelled], np.ndarray]:
    """Pairs of answers of three words, each with a value of its own, labelled by Bradley-Terry; and
    the true log-odds of the answer that was chosen.
    """
    values = {word: random.Random(f"value of {word}").gauss(0, 1) for word in WORDS}
    spread = np.std(list(values.values())) * math.sqrt(3)
    draw, found, truth = random.Random(seed), list[Labelled](), list[float]()
    for number in range(pairs):
        prompt = " ".join(draw.choices(WORDS, k=3))
        chosen, rejected = (draw.choices(WORDS, k=3) for _ in range(2))
        gain = sum(values[word] for word in chosen) - sum(values[word] for word in rejected)
        log_odds = _SPREAD * gain / spread
        if draw.random() > expit(log_odds):
            chosen, rejected, log_odds = rejected, chosen, -log_odds
        answers = (f"{' '.join(chosen)}.", f"{' '.join(rejected)}.")
        group = text_group(toy.tokenizer, prompt, answers, str(number))
        found.append(Labelled(group=group))
        truth.append(log_odds)
    return found, np.array(truth)


def slope_on_fresh_pairs(toy: Backbone, scorer: Scorer) -> float:
    """Of the true probabilities on the differences of scores."""
    fresh, truth = world(toy, 600, seed=1000)
    return slope_of(differences(scorer, fresh), expit(truth))


def differences(scorer: Scorer, pairs: Sequence[Labelled]) -> np.ndarray:
    scores = torch.stack(scorer.scores([pair.group for pair in pairs]))
    return (scores[:, 0] - scores[:, 1]).numpy()


def test_the_score_of_a_head_is_log_odds_on_fresh_pairs(toy: Backbone) -> None:
    pairs, _ = world(toy, 1000, seed=0)
    assert slope_on_fresh_pairs(toy, fitted_scorer(toy, pairs, 0)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("parameters", "rate"), [("lora", 3e-3), ("full", 1e-3)])
def test_the_score_of_a_trained_backbone_is_log_odds_on_fresh_pairs(
    toy: Backbone, parameters: str, rate: float
) -> None:
    settings = RewardModel.model_validate(
        {"parameters": parameters, "learning_rate": rate, "epochs": 2, "batch_size": 32}
    )
    pairs, _ = world(toy, 3000, seed=0)  # as many unseen ones that chance is worth .05 of a slope
    parts = Divided(learned=pairs[:800], unseen=pairs[800:])
    scorer = tuned_scorer(toy, parts, settings, seed=0)
    assert slope_on_fresh_pairs(toy, scorer) == pytest.approx(1, abs=0.15)


def test_a_backbone_that_knows_its_pairs_by_heart_is_calibrated_on_others(toy: Backbone) -> None:
    # 100 pairs, 30 times each: a head that is fitted to them again promises far too much
    settings = RewardModel(parameters="full", learning_rate=5e-3, epochs=30, batch_size=20)
    pairs, _ = world(toy, 100, seed=0)
    parts = divided(pairs, 0)
    scorer = tuned_scorer(toy, parts, settings, seed=0)
    again = fitted_scorer(scorer.backbone, parts.learned, 0)
    fresh, truth = world(toy, 600, seed=1000)
    fits, refits = (slope_of(differences(each, fresh), expit(truth)) for each in (scorer, again))
    assert refits < 0.5 * fits
    assert scorer.head.scale < 0.5  # of what the head itself had promised


def test_a_fifth_of_the_pairs_is_kept_from_the_backbone_all_of_a_prompt_together(
    toy: Backbone,
) -> None:
    pairs = [
        Labelled(group=text_group(toy.tokenizer, f"Why {place % 25}?", ("Yes.", "No."), str(place)))
        for place in range(100)
    ]
    parts = divided(pairs, seed=3)
    assert len(parts.unseen) == 20 and len(parts.learned) == 80
    known, kept = ({pair.group.prompt for pair in part} for part in (parts.learned, parts.unseen))
    assert not known & kept
    assert divided(pairs[::-1], seed=3).unseen == parts.unseen[::-1]  # by digest
    assert divided(pairs, seed=4).unseen != parts.unseen
    with pytest.raises(UserError, match="keeps a fifth .* 20 pairs of 1 prompts leave 0"):
        divided([pairs[0]] * 20, seed=0)


def test_the_pairs_of_a_prompt_are_in_one_fold() -> None:
    # each pair is there five times: a head that has seen a copy knows the answer
    random_ = torch.Generator().manual_seed(0)
    copies = torch.randn(21, 2, 30, generator=random_, dtype=torch.float64).repeat(5, 1, 1)
    margins = torch.zeros(105, dtype=torch.float64)
    prompts = [place % 21 for place in range(105)]
    knows, guesses = fit_head(copies, margins), fit_head(copies, margins, None, prompts)
    assert float((knows.unseen > 0).double().mean()) > 0.9
    assert float((guesses.unseen > 0).double().mean()) < 0.8


def test_calibration_keeps_the_order_and_the_centre() -> None:
    head = Head(weight=torch.tensor([2.0, -1.0], dtype=torch.float64), bias=0.5)
    unseen = torch.tensor([3.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    honest = calibrated(head, unseen)
    assert honest.scale == pytest.approx(slope_of(unseen.numpy()))
    assert honest.weight.tolist() == pytest.approx((head.weight * honest.scale).tolist())
    assert honest.bias == pytest.approx(head.bias * honest.scale)
    assert calibrated(head, -unseen).scale == LEAST_SCALE  # worse than chance: sure of nothing


def test_soft_labels_calibrate_too() -> None:
    difference = np.array([1.0, -2.0, 0.5, 3.0])
    certain = expit(0.7 * difference)
    assert slope_of(np.tile(difference, 200), np.tile(certain, 200)) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_the_slope_of_a_planted_world_is_found_and_inside_its_interval(slope: float) -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(0, 1.5, 1500)
    chosen = np.where(rng.random(1500) < expit(slope * score), score, -score)
    low, high = slope_interval(chosen, seed=0)
    assert low < slope < high < low + 0.7
    assert slope_of(chosen) == pytest.approx(slope, rel=0.15)
    assert slope_of(-chosen) == pytest.approx(-slope_of(chosen))


def test_the_slope_is_finite_where_every_pair_is_right() -> None:
    # ten equal pairs, half a one against them (Firth): log(10.5 / 0.5)
    assert slope_of([1.0] * 10) == pytest.approx(math.log(21))
    assert slope_of([0.0, 0.0]) == 0.0


def test_a_test_on_pairs_gives_its_figures() -> None:
    pairs: list[dict[str, Any]] = [{"chosen": "a longer one", "rejected": "short"}] * 3
    figures = {row["name"]: row for row in figures_of_test([2.0, 1.0, -1.0], pairs)}
    assert figures["held_out_accuracy"]["value"] == pytest.approx(2 / 3)
    assert figures["longer_is_better_accuracy"]["value"] == 1.0
    slope = figures["calibration_slope"]
    assert slope["low"] < slope["value"] < slope["high"]
    assert "calibration_slope" not in {row["name"] for row in figures_of_test([2.0], pairs[:1])}

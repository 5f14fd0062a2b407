"""The pointwise reward model: a linear head on a backbone's hidden states, fitted to the optimum,
whose scores are log-odds on pairs that it has not learned from.

    fitted_scorer(base, pairs, layers)             a head alone
    tuned_scorer(base, divided(pairs), settings)   with the backbone under it
Test: pytest tests/tasks/training/reward
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dapflow.storage import ModelRef, UserError
from dapflow.tasks.calibration import slope_of
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.packed.features import answer_features
from dapflow.tasks.models.reward_head import Backbone, Head, Scorer
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.training.losses.bradley_terry import bradley_terry
from dapflow.tasks.training.reward.backbone import Labelled, save_backbone, tune

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 5
LEAST_SCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class Divided:
    """Pairs that a backbone learns from, and those that it is calibrated on."""

    learned: Sequence[Labelled]
    unseen: Sequence[Labelled]


def divided(pairs: Sequence[Labelled], seed: int) -> Divided:
    """A fifth of the pairs, all of some prompts chosen by digest, is kept from the backbone. Raises
    UserError for too few.
    """
    prompts = sorted(
        {pair.group.prompt for pair in pairs},
        key=lambda prompt: derive_seed(seed, "calibration", *prompt),
    )
    counts = Counter(pair.group.prompt for pair in pairs)
    before = accumulate((counts[prompt] for prompt in prompts), initial=0)
    kept = {
        prompt
        for prompt, count in zip(prompts, before, strict=False)
        if count * _FOLDS < len(pairs)
    }
    learned = [pair for pair in pairs if pair.group.prompt not in kept]
    if len(learned) < 2 * _FOLDS:
        raise UserError(
            "A reward model whose backbone is trained keeps a fifth of its prompts to calibrate "
            f"it, and {len(pairs)} pairs of {len(prompts)} prompts leave {len(learned)} to learn "
            f"from: give it preferences that leave {2 * _FOLDS} or more."
        )
    return Divided(learned=learned, unseen=[pair for pair in pairs if pair.group.prompt in kept])


def fitted_scorer(
    base: Backbone,
    pairs: Sequence[Labelled],
    layers: int,
    on_pairs: Callable[[int], None] | None = None,
) -> Scorer:
    """A head on the backbone as it is, calibrated on the folds of its cross-validation."""
    certain = torch.tensor([pair.certain for pair in pairs]).double()
    fit = fit_head(
        _features(base, pairs, layers, on_pairs),
        torch.tensor([pair.margin for pair in pairs]).double(),
        certain,
        [pair.group.prompt for pair in pairs],
    )
    return Scorer(base, calibrated(fit.head, fit.unseen, certain), layers)


def tuned_scorer(
    base: Backbone,
    pairs: Divided,
    settings: RewardModel,
    seed: int,
    checkpoint_dir: Path | None = None,
    on_pairs: Callable[[int], None] | None = None,
) -> Scorer:
    """A backbone and the head that was trained with it, calibrated on pairs that neither has seen.

    The head begins as the calibrated one of the backbone as it is (linear probing, then
    fine-tuning: arXiv 2202.10054). It is not fitted again: a head that is fitted to pairs which its
    backbone knows takes what the backbone remembers for what it can tell.
    """
    start = fitted_scorer(base, pairs.learned, settings.layers, on_pairs)
    tuned = tune(start, pairs.learned, settings, seed, checkpoint_dir, on_pairs)
    features = _features(tuned.backbone, pairs.unseen, settings.layers, on_pairs)
    head = Head.centred(tuned.head.weight, features)
    scores = head.scores(features)
    certain = torch.tensor([pair.certain for pair in pairs.unseen]).double()
    head = calibrated(head, scores[:, 0] - scores[:, 1], certain)
    return Scorer(tuned.backbone, head, settings.layers)


def _features(
    base: Backbone,
    pairs: Sequence[Labelled],
    layers: int,
    on_pairs: Callable[[int], None] | None,
) -> Tensor:
    """fp64 [pairs, 2, width]."""
    groups = [pair.group for pair in pairs]
    return torch.stack(answer_features(base.model, groups, layers, on_groups=on_pairs)).double()


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A head, not yet calibrated, and the difference of scores that it gives each pair [pairs] when
    it is fitted without the pair's fold.
    """

    head: Head
    unseen: Tensor


def fit_head(
    features: Tensor,
    margins: Tensor,
    certain: Tensor | None = None,
    prompts: Sequence[Hashable] | None = None,
) -> Fit:
    """The linear head that minimises the Bradley-Terry loss with a ridge penalty chosen by
    cross-validation.

    features: fp64 [pairs, 2, width], chosen first.
    margins: [pairs].
    certain: [pairs], the probability that chosen is better, None for 1 (soft labels, RLAIF, arXiv
    2309.00267).
    prompts: of the pairs: those of one prompt are in one fold; None: each has its own.
    The bias centres the scores. Raises UserError for fewer pairs than folds.
    """
    if len(features) < 2 * _FOLDS:
        raise UserError(
            f"A reward model needs at least {2 * _FOLDS} labelled pairs, there are {len(features)}."
        )
    scale = features.std(dim=(0, 1)) + 1e-6
    differences = (features[:, 0] - features[:, 1]) / scale
    width = features.shape[-1]
    doubt = torch.zeros_like(margins) if certain is None else 1 - certain
    fold = _folds(len(features), prompts)

    def unseen(penalty: float) -> Tensor:
        return _out_of_fold(differences, margins, doubt, penalty * width, fold)

    def loss(penalty: float) -> float:
        scores = unseen(penalty)
        return float(bradley_terry(scores, torch.zeros_like(scores), certain=1 - doubt).sum())

    best = min(_PENALTIES, key=loss)
    weight = _newton(differences, margins, doubt, best * width) / scale
    return Fit(head=Head.centred(weight, features), unseen=unseen(best))


def calibrated(head: Head, unseen: Tensor, certain: Tensor | None = None) -> Head:
    """The head, whose scores differ by the log-odds that an answer is the better one, as its
    differences on unseen pairs have it.

    A head that is no better than chance there keeps its order and is sure of nothing.
    """
    slope = slope_of(unseen.numpy(), 1.0 if certain is None else certain.numpy())
    return head.scaled(max(slope, LEAST_SCALE))


def _folds(pairs: int, prompts: Sequence[Hashable] | None) -> Tensor:
    """Which fold each pair is in: with all others of its prompt, or where prompts are fewer than
    folds, by itself.
    """
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts or ()))}
    if prompts is None or len(places) < _FOLDS:
        return torch.arange(pairs) % _FOLDS
    return torch.tensor([places[prompt] % _FOLDS for prompt in prompts])


def _newton(differences: Tensor, margins: Tensor, doubt: Tensor, penalty: float) -> Tensor:
    """argmin_w sum (1 - doubt) BT(z) + doubt BT(-z) + penalty/2 |w|^2, z = differences w: convex,
    so Newton's method.
    """
    weight = differences.new_zeros(differences.shape[1])
    identity = torch.eye(len(weight), dtype=weight.dtype)
    for _ in range(50):
        wrong = torch.sigmoid(
            margins - differences @ weight
        )  # sigma(-(z - m)), the slope of the loss at z
        gradient = penalty * weight - differences.T @ (wrong - doubt)
        curvature = (differences.T * (wrong * (1 - wrong))) @ differences + penalty * identity
        change = torch.linalg.solve(curvature, gradient)
        weight = weight - change
        if change.abs().max() < 1e-9:
            break
    return weight


def _out_of_fold(
    differences: Tensor, margins: Tensor, doubt: Tensor, penalty: float, fold: Tensor
) -> Tensor:
    """The difference of scores of each pair by a head that has not learned from its fold."""
    scores = torch.empty_like(margins)
    for number in range(_FOLDS):
        seen, held = fold != number, fold == number
        weight = _newton(differences[seen], margins[seen], doubt[seen], penalty)
        scores[held] = differences[held] @ weight
    return scores


def save_scorer(directory: Path, scorer: Scorer, backbone: ModelRef, settings: RewardModel) -> None:
    """Write the head, what was trained of the backbone, and which backbone it is."""
    head = scorer.head
    save_file(
        {"weight": head.weight, "bias": torch.tensor(head.bias, dtype=torch.float64)},
        directory / "head.safetensors",
    )
    config = {
        "backbone": backbone.version,
        "layers": settings.layers,
        "parameters": settings.parameters,
        "scale": head.scale,
    }
    (directory / "reward.json").write_text(json.dumps(config))
    save_backbone(directory, scorer.backbone, settings.parameters)

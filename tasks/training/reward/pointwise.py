"""The pointwise reward model: a linear head on a backbone's hidden states, fitted to the optimum.

Test: pytest tests/tasks/training/reward/test_reward.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dapflow.storage import ModelRef, UserError
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.reward_head import Scorer
from dapflow.tasks.training.losses.bradley_terry import bradley_terry
from dapflow.tasks.training.reward.backbone import save_backbone

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 5


def fit_head(
    features: Tensor, margins: Tensor, certain: Tensor | None = None
) -> tuple[Tensor, float]:
    """The linear head that minimises the Bradley-Terry loss with a ridge penalty chosen by
    cross-validation.

    features fp64 [pairs, 2, width], chosen first; margins [pairs]; certain [pairs]: the probability
    that chosen is better, None for 1 (soft labels, RLAIF, arXiv 2309.00267). Returns the weight
    [width] and the bias that centres the scores. Raises UserError for fewer pairs than folds.
    """
    if len(features) < 2 * _FOLDS:
        raise UserError(
            f"A reward model needs at least {2 * _FOLDS} labelled pairs, there are {len(features)}."
        )
    scale = features.std(dim=(0, 1)) + 1e-6
    differences = (features[:, 0] - features[:, 1]) / scale
    width = features.shape[-1]
    doubt = torch.zeros_like(margins) if certain is None else 1 - certain
    best = min(
        _PENALTIES,
        key=lambda penalty: _validation_loss(differences, margins, doubt, penalty * width),
    )
    weight = _newton(differences, margins, doubt, best * width) / scale
    return weight, -float((features @ weight).mean())


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


def _validation_loss(differences: Tensor, margins: Tensor, doubt: Tensor, penalty: float) -> float:
    fold = torch.arange(len(differences)) % _FOLDS
    total = 0.0
    for number in range(_FOLDS):
        weight = _newton(
            differences[fold != number], margins[fold != number], doubt[fold != number], penalty
        )
        scores = differences[fold == number] @ weight
        total += float(
            bradley_terry(scores, torch.zeros_like(scores), certain=1 - doubt[fold == number]).sum()
        )
    return total


def save_scorer(directory: Path, scorer: Scorer, backbone: ModelRef, settings: RewardModel) -> None:
    """Write the head, what was trained of the backbone, and which backbone it is."""
    save_file(
        {"weight": scorer.weight, "bias": torch.tensor(scorer.bias, dtype=torch.float64)},
        directory / "head.safetensors",
    )
    config = {
        "backbone": backbone.version,
        "layers": settings.layers,
        "parameters": settings.parameters,
    }
    (directory / "reward.json").write_text(json.dumps(config))
    save_backbone(directory, scorer.backbone, settings.parameters)

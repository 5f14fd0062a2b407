"""Reward models on the policy's own backbone: Bradley-Terry with optional margins; head only, LoRA, or all weights.

    train_reward_model(backbone, labelled, test)  ->  a model version: head.safetensors, reward.json and, where trained, the backbone
Test: pytest tests/tasks/training/test_reward.py
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from storage import DatasetRef, Lake, ModelRef, UserError
from tasks.models import files_digest
from tasks.policy import load_policy
from tasks.statistics import calibration_error, wilson
from tasks.step import Out, step
from tasks.training.backbone import Backbone, load_backbone, save_backbone, tune
from tasks.training.batches import Group
from tasks.training.features import answer_features, text_group
from tasks.training.losses import bradley_terry

MARGINS: dict[str, dict[str, float]] = {  # Llama 2, arXiv 2307.09288, table 27
    "none": {},
    "small": {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligible": 0.0},
    "large": {"significantly": 3.0, "better": 2.0, "slightly": 1.0, "negligible": 0.0},
}
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 5


class RewardModel(BaseModel):
    """How a reward model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    parameters: Literal["head", "lora", "full"] = Field(default="head", description="which weights are trained")
    layers: int = Field(default=0, ge=0, description="layers of the backbone that are computed: the head reads what comes out; 0 for all")
    margins: Literal["none", "small", "large"] = Field(default="none", description="margin by rating (Llama 2)")
    epochs: int = Field(default=1, ge=1, description="for lora and full")
    learning_rate: float = Field(default=1e-4, gt=0, description="for lora and full")
    batch_size: int = Field(default=8, ge=1, description="pairs per optimiser step, for lora and full")
    lora_rank: int = Field(default=8, ge=1)


class Scorer:
    """A trained reward model: scores answers in logits, so that sigmoid(score_a - score_b) is the probability that a is better."""

    def __init__(self, backbone: Backbone, weight: Tensor, bias: float, layers: int) -> None:
        self.backbone, self.weight, self.bias, self.layers = backbone, weight, bias, layers

    def scores(self, groups: Sequence[Group], **options: Any) -> list[Tensor]:
        """The score of each answer of each group, fp64 [answers]."""
        found = answer_features(self.backbone.model, groups, self.layers, **options)
        return [features.double() @ self.weight + self.bias for features in found]


@step("models", title="train reward model on {labelled.rows} pairs", expects=lambda **_: 1)
def train_reward_model(out: Out, backbone: ModelRef, labelled: DatasetRef, test: DatasetRef, settings: RewardModel, seed: int) -> None:
    """Fit on `labelled`, report the accuracy on `test` (a metric of the version, with its 95 % interval)."""
    rows = [row for row in out.lake.rows_of(labelled) if row["dropped"] is None]
    held_out = [row for row in out.lake.rows_of(test) if row["dropped"] is None]
    loaded = load_policy(out.lake, backbone)
    base = Backbone(model=loaded.model, tokenizer=loaded.tokenizer)
    groups = [_group(base, row) for row in rows]
    margins = torch.tensor([_margin(row, settings) for row in rows], dtype=torch.float64)
    progress = _Progress(out, len(groups) + len(held_out))
    if settings.parameters != "head":
        base = tune(base, groups, margins, settings, seed)
    features = answer_features(base.model, groups, settings.layers, on_groups=progress)
    weight, bias = fit_head(torch.stack(features).double(), margins)
    scorer = Scorer(base, weight, bias, settings.layers)
    scores = torch.stack(scorer.scores([_group(base, row) for row in held_out], on_groups=progress))
    directory = out.scratch / "partial-reward-model"
    _save(directory, scorer, backbone, settings)
    digest = files_digest(directory)
    path = out.publish(directory)
    row = {"id": out.row_id(0), "name": f"reward model on {len(rows)} pairs", "role": "reward", "parent": backbone.version}
    out.write(0, [row | {"path": path, "digest": digest, "recipe": settings.model_dump_json()}])
    out.write(1, _metrics(out, scores, held_out), table="metrics")


def fit_head(features: Tensor, margins: Tensor) -> tuple[Tensor, float]:
    """The linear head that minimises the Bradley-Terry loss with a ridge penalty chosen by cross-validation.

    features fp64 [pairs, 2, width], chosen first; margins [pairs]. Returns the weight [width] and the bias that centres the scores.
    Raises UserError for fewer pairs than folds.
    """
    if len(features) < 2 * _FOLDS:
        raise UserError(f"A reward model needs at least {2 * _FOLDS} labelled pairs, there are {len(features)}.")
    scale = features.std(dim=(0, 1)) + 1e-6
    differences = (features[:, 0] - features[:, 1]) / scale
    width = features.shape[-1]
    best = min(_PENALTIES, key=lambda penalty: _validation_loss(differences, margins, penalty * width))
    weight = _newton(differences, margins, best * width) / scale
    return weight, -float((features @ weight).mean())


def _newton(differences: Tensor, margins: Tensor, penalty: float) -> Tensor:
    """argmin_w sum BT(differences w) + penalty/2 |w|^2: convex, so Newton's method."""
    weight = differences.new_zeros(differences.shape[1])
    identity = torch.eye(len(weight), dtype=weight.dtype)
    for _ in range(50):
        wrong = torch.sigmoid(margins - differences @ weight)  # sigma(-(z - m)), the slope of the loss at z
        gradient = penalty * weight - differences.T @ wrong
        curvature = (differences.T * (wrong * (1 - wrong))) @ differences + penalty * identity
        change = torch.linalg.solve(curvature, gradient)
        weight = weight - change
        if change.abs().max() < 1e-9:
            break
    return weight


def _validation_loss(differences: Tensor, margins: Tensor, penalty: float) -> float:
    fold = torch.arange(len(differences)) % _FOLDS
    total = 0.0
    for number in range(_FOLDS):
        weight = _newton(differences[fold != number], margins[fold != number], penalty)
        scores = differences[fold == number] @ weight
        total += float(bradley_terry(scores, torch.zeros_like(scores)).sum())
    return total


def load_scorer(lake: Lake, ref: ModelRef) -> Scorer:
    """A reward model of the lake, ready to score."""
    directory: Path = lake.model(ref)["path"]
    config = json.loads((directory / "reward.json").read_text())
    base = lake.find(config["backbone"])
    assert isinstance(base, ModelRef), "the backbone is a parent of this version"
    head = load_file(directory / "head.safetensors")
    backbone = load_backbone(directory, load_policy(lake, base), config["parameters"])
    return Scorer(backbone, head["weight"], float(head["bias"]), config["layers"])


def _save(directory: Path, scorer: Scorer, backbone: ModelRef, settings: RewardModel) -> None:
    directory.mkdir(exist_ok=True)
    save_file({"weight": scorer.weight, "bias": torch.tensor(scorer.bias, dtype=torch.float64)}, directory / "head.safetensors")
    config = {"backbone": backbone.version, "layers": settings.layers, "parameters": settings.parameters}
    (directory / "reward.json").write_text(json.dumps(config))
    save_backbone(directory, scorer.backbone, settings.parameters)


def _group(base: Backbone, row: dict[str, Any]) -> Group:
    return text_group(base.tokenizer, row["prompt"], (row["chosen"], row["rejected"]), row["id"])


def _margin(row: dict[str, Any], settings: RewardModel) -> float:
    return MARGINS[settings.margins].get(row["rating"] or "", 0.0)


def _metrics(out: Out, scores: Tensor, held_out: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy on held-out pairs, beside that of preferring the longer answer, and how honest its probabilities are."""
    right = int((scores[:, 0] > scores[:, 1]).sum())
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in held_out)
    names = {"held_out_accuracy": right, "longer_is_better_accuracy": longer}
    rows: list[dict[str, Any]] = []
    for name, count in names.items():
        low, high = wilson(count, len(held_out))
        row = {"id": out.row_id(len(rows)), "subject": out.version, "name": name, "value": count / len(held_out)}
        rows.append(row | {"low": low, "high": high, "unit": "share of pairs"})
    error = calibration_error((scores[:, 0] - scores[:, 1]).sigmoid().tolist())
    row = {"id": out.row_id(len(rows)), "subject": out.version, "name": "calibration_error", "value": error}
    return [*rows, row | {"unit": "probability"}]


class _Progress:
    def __init__(self, out: Out, total: int) -> None:
        self.out, self.total, self.done = out, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.out.progress(self.done, self.total, "pairs")

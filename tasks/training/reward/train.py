"""Reward models: how one is trained, and the step that does it.

    pointwise   a head on the policy's backbone, by Bradley-Terry with optional margins: scores an
                answer by itself (pointwise.py)
    pairwise    a language model that reads two answers and names the better: RSO's rho (ranker.py)

train_reward_model(backbone, labelled, test)  ->  a model version, and as metrics how often it is
right, and how sure it is of each test pair
Test: pytest tests/tasks/training/reward/test_reward.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.calibration import rows_about
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.directory import files_digest
from dapflow.tasks.models.names import Loaded
from dapflow.tasks.models.packed.features import answer_features, text_group
from dapflow.tasks.models.packed.lengths import fitting, say_left_out
from dapflow.tasks.models.policy import load_policy
from dapflow.tasks.models.ranker import Comparison, Ranker
from dapflow.tasks.models.reward_head import Backbone, Scorer
from dapflow.tasks.statistics import calibration_error, wilson
from dapflow.tasks.step import Out, step
from dapflow.tasks.training.reward.backbone import Labelled, tune
from dapflow.tasks.training.reward.pointwise import fit_head, save_scorer
from dapflow.tasks.training.reward.ranker import save_ranker, tune_ranker
from dapflow.tasks.training.settings import MARGINS
from dapflow.tasks.training.work import fitting_features


@step(
    "models",
    title="train reward model on {labelled.rows} pairs",
    expects=lambda **_: 1,
    activity="training",
    work=lambda labelled, test, **_: fitting_features(labelled, test),
)
def train_reward_model(
    out: Out,
    backbone: ModelRef,
    labelled: DatasetRef,
    test: DatasetRef,
    settings: RewardModel,
    seed: int,
) -> None:
    """Fit on `labelled`, report the accuracy on `test` (a metric of the version, with its 95 %
    interval) and, as metrics about the pairs of `test`, the probability of each pair's better
    answer. Raises UserError where there is nothing to fit, or to test, on."""
    loaded = load_policy(out.lake, backbone)
    rows, too_long = _readable(out, loaded, labelled, settings)
    held_out, untested = _readable(out, loaded, test, settings)
    say_left_out([*too_long, *untested], context_length(loaded.model), out.say)
    if not held_out:
        raise UserError(
            f"None of the {test.rows} preferences that test the reward model can be used "
            "(ties, identical answers, too long): add others."
        )
    directory = out.scratch / "partial-reward-model"
    directory.mkdir(exist_ok=True)
    material = Material(
        backbone=backbone, loaded=loaded, rows=rows, held_out=held_out, settings=settings, seed=seed
    )
    train, role = {
        "pointwise": (_pointwise, "reward"),
        "pairwise": (_pairwise, "ranker"),
    }[settings.form]
    probabilities, more = train(out, material, directory)
    row = {
        "id": out.row_id(0),
        "name": f"{role} model on {len(rows)} pairs",
        "role": role,
        "parent": backbone.version,
        "digest": files_digest(directory),
        "path": out.publish(directory),
        "recipe": settings.model_dump_json(),
    }
    out.write(0, [row])
    figures = [
        *_figures(out, probabilities, held_out),
        *more,
        *rows_about(held_out, probabilities),
        *too_long,
        *untested,
    ]
    metrics = [{"id": out.row_id(place), **figure} for place, figure in enumerate(figures)]
    out.write(1, metrics, table="metrics")


Rows = Sequence[dict[str, Any]]
Trained = tuple[list[float], list[dict[str, Any]]]
"""The probability of the better answer of each held-out pair, and further metrics."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a reward model is trained from, and the pairs that test it."""

    backbone: ModelRef
    loaded: Loaded
    rows: Rows
    held_out: Rows
    settings: RewardModel
    seed: int


def _readable(
    out: Out, loaded: Loaded, pairs: DatasetRef, settings: RewardModel
) -> tuple[Rows, list[dict[str, Any]]]:
    """The pairs that are not dropped and fit the backbone's context, and figures about those that
    do not.
    """
    rows = {row["id"]: row for row in out.lake.rows_of(pairs) if row["dropped"] is None}
    if settings.form == "pointwise":
        groups = [
            text_group(loaded.tokenizer, row["prompt"], _answers(row), row["id"])
            for row in rows.values()
        ]
    else:
        groups = [Ranker(loaded).group(_comparison(row), swapped=False) for row in rows.values()]
    kept, too_long = fitting(groups, context_length(loaded.model), least=2)
    return [rows[group.row_ids[0]] for group in kept], too_long


def _pointwise(out: Out, material: Material, directory: Path) -> Trained:
    settings, loaded = material.settings, material.loaded
    base = Backbone(model=loaded.model, tokenizer=loaded.tokenizer)
    margins = [MARGINS[settings.margins].get(row["rating"] or "", 0.0) for row in material.rows]
    certain = [1.0 if row["probability"] is None else row["probability"] for row in material.rows]
    groups, asked = (
        [text_group(base.tokenizer, row["prompt"], _answers(row), row["id"]) for row in rows]
        for rows in (material.rows, material.held_out)
    )
    tuned = settings.parameters != "head"
    progress = _Progress(out, len(groups) * (1 + tuned * settings.epochs) + len(asked))
    if tuned:
        pairs = [
            Labelled(group=group, margin=m, certain=p)
            for group, m, p in zip(groups, margins, certain, strict=True)
        ]
        base = tune(
            base, pairs, settings, material.seed, checkpoint_dir=out.scratch, on_pairs=progress
        )
    features = answer_features(base.model, groups, settings.layers, on_groups=progress)
    head = fit_head(
        torch.stack(features).double(),
        torch.tensor(margins).double(),
        torch.tensor(certain).double(),
    )
    scorer = Scorer(base, *head, settings.layers)
    scores: Tensor = torch.stack(scorer.scores(asked, on_groups=progress))
    save_scorer(directory, scorer, material.backbone, settings)
    return (scores[:, 0] - scores[:, 1]).sigmoid().tolist(), []


def _pairwise(out: Out, material: Material, directory: Path) -> Trained:
    settings = material.settings
    pairs, asked = (
        [_comparison(row) for row in rows] for rows in (material.rows, material.held_out)
    )
    progress = _Progress(out, 2 * (settings.epochs * len(pairs) + len(asked)))
    tuned = tune_ranker(
        material.loaded,
        pairs,
        settings,
        material.seed,
        checkpoint_dir=out.scratch,
        on_step=progress,
    )
    preferences = Ranker(tuned).compare(asked, on_rows=progress)
    save_ranker(directory, tuned)
    consistent = sum(preference.consistent for preference in preferences)
    return [preference.probability for preference in preferences], [
        _share(out, "position_consistency", consistent, len(preferences))
    ]


def _comparison(row: dict[str, Any]) -> Comparison:
    return Comparison(row["prompt"], *_answers(row), row["id"], row["probability"])


def _answers(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"], row["rejected"]


def _figures(out: Out, probabilities: Sequence[float], held_out: Rows) -> list[dict[str, Any]]:
    """Accuracy on held-out pairs, beside that of preferring the longer answer, and how honest its
    probabilities are.
    """
    right = sum(probability > 0.5 for probability in probabilities)
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in held_out)
    rows = [
        _share(out, "held_out_accuracy", right, len(held_out)),
        _share(out, "longer_is_better_accuracy", longer, len(held_out)),
    ]
    error = {
        "subject": out.version,
        "name": "calibration_error",
        "value": calibration_error(probabilities),
        "unit": "probability",
    }
    return [*rows, error]


def _share(out: Out, name: str, count: int, trials: int) -> dict[str, Any]:
    low, high = wilson(count, trials)
    return {
        "subject": out.version,
        "name": name,
        "value": count / trials,
        "low": low,
        "high": high,
        "unit": "share of pairs",
    }


class _Progress:
    def __init__(self, out: Out, total: int) -> None:
        self.out, self.total, self.done = out, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.out.progress(self.done, self.total, "pairs")

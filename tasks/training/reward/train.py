"""Reward models: how one is trained, and the step that does it.

    pointwise   a head on the policy's backbone, by Bradley-Terry with optional margins: scores an
                answer by itself (pointwise.py)
    pairwise    a language model that reads two answers and names the better: RSO's rho (ranker.py)

train_reward_model(backbone, labelled, test)  ->  a model version, and as metrics how often it is
right, whether its scores are log-odds, and how sure it is of each test pair
Test: pytest tests/tasks/training/reward/test_reward.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.special import expit
from torch import Tensor

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.calibration import rows_about
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.directory import files_digest
from dapflow.tasks.models.names import Loaded
from dapflow.tasks.models.packed.features import text_group
from dapflow.tasks.models.packed.lengths import fitting, say_left_out
from dapflow.tasks.models.policy import load_policy
from dapflow.tasks.models.ranker import Comparison, Ranker
from dapflow.tasks.models.reward_head import Backbone
from dapflow.tasks.step import Out, step
from dapflow.tasks.training.reward.backbone import Labelled
from dapflow.tasks.training.reward.figures import figures_of_test, log_odds, share_of_pairs
from dapflow.tasks.training.reward.pointwise import (
    LEAST_SCALE,
    divided,
    fitted_scorer,
    save_scorer,
    tuned_scorer,
)
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
    differences, more = train(out, material, directory)
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
        *({"subject": out.version, **figure} for figure in figures_of_test(differences, held_out)),
        *({"subject": out.version, **figure} for figure in more),
        *rows_about(held_out, expit(differences).tolist()),
        *too_long,
        *untested,
    ]
    metrics = [{"id": out.row_id(place), **figure} for place, figure in enumerate(figures)]
    out.write(1, metrics, table="metrics")


Rows = Sequence[dict[str, Any]]
Trained = tuple[list[float], list[dict[str, Any]]]
"""The log-odds of the better answer of each held-out pair, and further metrics."""


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
    pairs = [
        Labelled(
            group=text_group(base.tokenizer, row["prompt"], _answers(row), row["id"]),
            margin=MARGINS[settings.margins].get(row["rating"] or "", 0.0),
            certain=1.0 if row["probability"] is None else row["probability"],
        )
        for row in material.rows
    ]
    asked = [
        text_group(base.tokenizer, row["prompt"], _answers(row), row["id"])
        for row in material.held_out
    ]
    if settings.parameters == "head":
        progress = _Progress(out, len(pairs) + len(asked))
        scorer = fitted_scorer(base, pairs, settings.layers, progress)
    else:
        parts = divided(pairs, material.seed)
        passes = len(pairs) + settings.epochs * len(parts.learned)
        progress = _Progress(out, passes + len(asked))
        scorer = tuned_scorer(base, parts, settings, material.seed, out.scratch, progress)
    if scorer.head.scale <= LEAST_SCALE:
        out.say(
            "WARNING: the reward model is no better than chance on pairs that it has not learned "
            "from: give it more preferences, or others."
        )
    scores: Tensor = torch.stack(scorer.scores(asked, on_groups=progress))
    save_scorer(directory, scorer, material.backbone, settings)
    return (scores[:, 0] - scores[:, 1]).tolist(), []


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
    return [log_odds(preference.probability) for preference in preferences], [
        share_of_pairs("position_consistency", consistent, len(preferences))
    ]


def _comparison(row: dict[str, Any]) -> Comparison:
    return Comparison(row["prompt"], *_answers(row), row["id"], row["probability"])


def _answers(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"], row["rejected"]


class _Progress:
    def __init__(self, out: Out, total: int) -> None:
        self.out, self.total, self.done = out, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        self.out.progress(self.done, self.total, "pairs")

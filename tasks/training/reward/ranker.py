"""A pairwise ranker: a language model that reads a prompt and two answers, and names the better one
(RSO's rho, arXiv 2309.06657, 3.2).

    rho(x, y1, y2) = P("A") / (P("A") + P("B")) of its next token, mean over both orders
Trained on every pair in both orders, so that no place is preferred. Test: pytest
tests/tasks/training/reward/test_ranker.py
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.names import Loaded, save
from dapflow.tasks.models.parameters import merge, trainable
from dapflow.tasks.models.ranker import Comparison, Ranker
from dapflow.tasks.training.fit import Session, fit
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.losses.pairs.label import label
from dapflow.tasks.training.settings import training_of

# by its function: what this module imports is part of the version of a reward model
LOSS = Loss.of(label.__name__)


def tune_ranker(
    base: Loaded,
    pairs: Sequence[Comparison],
    settings: RewardModel,
    seed: int,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Loaded:
    """A copy of `base` trained to name the first answer of each comparison, which is the better
    one, in both orders.
    """
    questions = Ranker(base)
    groups = [questions.group(pair, swapped) for pair in pairs for swapped in (False, True)]
    model = trainable(
        copy.deepcopy(base.model).float(), settings.parameters, settings.lora_rank, seed
    )
    training = training_of(settings).model_copy(
        update={"batch_size": 2 * settings.batch_size}
    )  # each pair in both orders
    session = Session(
        checkpoint_dir=checkpoint_dir,
        on_step=None if on_step is None else lambda log: on_step(training.batch_size),
    )
    fit(model, groups, LOSS, training, seed=seed, session=session)
    return Loaded(model=merge(model), tokenizer=base.tokenizer)


def save_ranker(directory: Path, ranker: Loaded) -> None:
    """As an ordinary model directory."""
    save(ranker, directory)

"""The policy learns from the pairs.

    train(policy, reference, pairs, loss, training)  ->  a model version, and its curves as metrics
Killed at any moment it goes on from its last checkpoint, and ends with the same weights to the bit.
Test: pytest tests/tasks/training/test_train.py
"""

from collections import Counter

from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.models.packed.groups import SIDES, pair_groups, sampled_of
from dapflow.tasks.step import Out, step
from dapflow.tasks.training.errors import NothingToLearnError
from dapflow.tasks.training.learn import Course, learn
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Training
from dapflow.tasks.training.work import learning


@step(
    "models",
    title="train with {loss.name}",
    expects=lambda **_: 1,
    activity="training",
    work=lambda pairs, training, **_: learning(pairs, training),
)
def train(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    pairs: list[DatasetRef],
    loss: Loss,
    training: Training,
    system: str | None,
    chat_template: str | None,
    seed: int,
) -> None:
    """Train a copy of `policy` on the pairs that were not dropped; the reference's log-probs are
    computed once, before. A row without `rejected` is for losses of one answer, and no other learns
    from it."""
    if not out.pending(1):  # killed between its last two commits
        return
    made = [row for ref in pairs for row in out.lake.rows_of(ref)]
    rows = [
        row
        for row in made
        if row["dropped"] is None and (row["rejected"] is not None or loss.answers == 1)
    ]
    if not rows:
        counts = Counter(row["dropped"] for row in made).most_common()
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
        raise NothingToLearnError(
            f"No pair is left to train on: {reasons or 'none was made'} "
            "(`dapflow show pairs` shows them)."
        )
    sampled = sampled_of(out.lake, rows)
    samplers = {
        row["id"]: [
            sampled[row[f"{side}_id"]]["policy"] if row[f"{side}_id"] else None
            for side in SIDES
            if row[side] is not None
        ]
        for row in rows
    }
    learn(
        out,
        Course(policy=policy, reference=reference, loss=loss, training=training, seed=seed),
        lambda loaded: pair_groups(loaded, rows, sampled, system, chat_template),
        samplers,
    )

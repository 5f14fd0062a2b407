"""`fit`: train a model in place on groups of answers, resumable at any moment with the same result
to the bit. Test: pytest tests/tasks/training/test_fit.py

Reads and writes only its checkpoint folder. Reference log-probs come in `Group.reference` (see
`logps.reference_logps`).
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group, epochs, microbatches
from dapflow.tasks.models.packed.logps import attention_of, pick_scorer, sequence_logps
from dapflow.tasks.models.parameters import checkpointed
from dapflow.tasks.training import checkpoints
from dapflow.tasks.training.logs import StepLog, displacement
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer.optimizer import Optimizer, pick_optimizer
from dapflow.tasks.training.optimizer_step import Moment, Trainer, train_step
from dapflow.tasks.training.processes.ranks import ALONE, Ranks
from dapflow.tasks.training.processes.sharding import shard
from dapflow.tasks.training.set_aside import best_step, looked, set_aside
from dapflow.tasks.training.settings import Training

# steps: whether chosen answers lose probability under a loss that has no reference costs a forward
# of one batch
_PROBED_EVERY = 20


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where a training keeps its checkpoints, who is told of each step, and which of the processes
    that train together this is: nothing that decides its result.
    """

    checkpoint_dir: Path | None = None
    on_step: Callable[[StepLog], None] | None = None
    ranks: Ranks = ALONE

    def told(self, log: StepLog) -> None:
        if self.on_step is not None:
            self.on_step(log)


_ALONE = Session()


def fit(
    model: PreTrainedModel,
    groups: Sequence[Group],
    loss: Loss,
    settings: Training,
    *,
    seed: int,
    session: Session = _ALONE,
) -> list[StepLog]:
    """Train `model` (in place, cast to the settings' dtype) and return the logs of every step,
    those before a resume included. Where the settings ask for it, some groups are set aside and
    looked at: the training may stop early, and ends with the weights that were the best.

    Started again after a kill with the same arguments, it goes on from the newest whole checkpoint;
    `on_step` then sees the steps after that checkpoint once more. Several processes that call it
    with the same arguments and their own `ranks` share each batch. Raises UserError where groups
    lack what the loss needs, where the checkpoints belong to another run, and where a loss or
    gradient is not finite (it names the rows; the checkpoints before it stay).
    """
    _check(groups, loss)
    kept, aside = set_aside(groups, settings)
    ranks, folder = session.ranks, session.checkpoint_dir
    model.eval()  # dropout off: the log-probs of the policy are those of the reference at the start
    dtype = settings.torch_dtype(model.device)
    # shards are fp32 masters, gathered in dtype
    torch.nn.Module.to(model, torch.float32 if ranks.sharded else dtype)
    scorer = pick_scorer(model)
    attention = attention_of(scorer, model)
    trainer = Trainer(
        model=model,
        loss=loss,
        settings=settings,
        scorer=shard(model, scorer, dtype) if ranks.sharded else scorer,
        optimizer=pick_optimizer(model, settings, seed, ranks),
        seed=seed,
        ranks=ranks,
    )
    run = _fingerprint(trainer, groups)
    logs = _resume(folder, trainer.optimizer, run, ranks)
    batches = list(epochs(len(kept), settings.batch_size, settings.epochs, seed))
    first, saved = [kept[index] for index in batches[0][1]], time.monotonic()
    with attention, checkpointed(model, settings.gradient_checkpointing):
        for step, (epoch, indices) in list(enumerate(batches))[len(logs) :]:
            if logs and logs[-1].stopped:
                break
            rate, last = settings.learning_rate_at(step, len(batches)), step + 1 == len(batches)
            batch = [kept[index] for index in indices]
            log = train_step(trainer, batch, Moment(step=step, epoch=epoch, learning_rate=rate))
            if step and ((step + 1) % _PROBED_EVERY == 0 or last):
                log = _probed(trainer, log, first, logs[0])
            logs.append(looked(trainer, aside, log, last))
            session.told(logs[-1])
            late = time.monotonic() - saved > 60 * settings.checkpoint_every_minutes
            if folder is not None and (
                ranks.first_says(late, model.device)
                or (step + 1) % settings.checkpoint_every_steps == 0
                or best_step(logs, settings) == step
            ):
                _save(folder, trainer, run, logs)
                saved = time.monotonic()
    _take_up_the_best(folder, trainer, logs)
    return logs


def _save(folder: Path, trainer: Trainer, run: str, logs: Sequence[StepLog]) -> None:
    state = {"run": run, "logs": [asdict(log) for log in logs]}
    best = best_step(logs, trainer.settings)
    checkpoints.save(
        folder,
        len(logs),
        trainer.optimizer.state(),
        state,
        trainer.ranks,
        best=None if best is None else best + 1,
    )


def _take_up_the_best(folder: Path | None, trainer: Trainer, logs: Sequence[StepLog]) -> None:
    """The weights of the best step, which are in its checkpoint, where it is not the last."""
    best = best_step(logs, trainer.settings)
    last = logs[-1].step
    if best is not None and best < last:
        assert folder is not None, "the best weights are kept on disk alone"
        trainer.optimizer.load(checkpoints.load_at(folder, best + 1, trainer.ranks))


def _probed(trainer: Trainer, log: StepLog, groups: Sequence[Group], before: StepLog) -> StepLog:
    """The log with a warning where the chosen answers of the first batch have become unlikely
    since: a loss without a reference does not say so by itself.
    """
    if trainer.loss.needs_reference:
        return log
    gained = _chosen_logp(trainer, groups) - before.logp_chosen
    warnings = displacement(gained, trainer.settings, "since the first step")
    return replace(log, warnings=(*log.warnings, *warnings))


@torch.no_grad()
def _chosen_logp(trainer: Trainer, groups: Sequence[Group]) -> float:
    """log p of the chosen answers, mean over groups."""
    chosen = [
        logps[0].item()
        for part in microbatches(groups, trainer.settings.tokens_per_microbatch)
        for logps in sequence_logps(
            trainer.model, [groups[index] for index in part], trainer.scorer
        )
    ]
    return math.fsum(chosen) / len(chosen)


def _check(groups: Sequence[Group], loss: Loss) -> None:
    if not groups:
        raise UserError("There is nothing to train on: no pair is left after judging and pairing.")
    for group in groups:
        rows = ", ".join(group.row_ids)
        if len(group.answers) < loss.answers:
            raise UserError(
                f"The loss {loss.name} needs {loss.answers} answers, "
                f"but {rows} has {len(group.answers)}."
            )
        if loss.needs_reference and group.reference is None:
            raise UserError(
                f"The loss {loss.name} needs a reference, "
                f"but {rows} has no reference log-probabilities."
            )
        if loss.needs_values and group.experience is None:
            raise UserError(
                f"The loss {loss.name} needs a value model, which only rounds train: "
                "set data to rounds."
            )


def _fingerprint(trainer: Trainer, groups: Sequence[Group]) -> str:
    """Digest of all that decides the result, for checkpoints that must not be another's."""
    ranks = trainer.ranks
    shards = f" in {ranks.world} shards" if ranks.sharded else ""
    settings = f"{trainer.loss.model_dump_json()} {trainer.settings.model_dump_json()}"
    digest = hashlib.sha256(f"{settings} {trainer.seed}{shards}".encode())
    for group in groups:
        digest.update(repr(group).encode())
    return digest.hexdigest()


def _resume(folder: Path | None, optimizer: Optimizer, run: str, ranks: Ranks) -> list[StepLog]:
    """The logs of the steps before the newest checkpoint, whose state is taken up."""
    checkpoint = None if folder is None else checkpoints.load(folder, ranks)
    if checkpoint is None:
        return []
    tensors, state = checkpoint
    if state["run"] != run:
        raise UserError(
            f"The checkpoints in {folder} are of another run (other data, loss, settings or seed): "
            "remove them or use another folder."
        )
    optimizer.load(tensors)
    return [StepLog.read(log) for log in state["logs"]]

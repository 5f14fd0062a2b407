"""`fit`: train a model in place on groups of answers, resumable at any moment with the same result
to the bit. Test: test_fit.py

Reads and writes only its checkpoint folder. Reference log-probs come in `Group.reference` (see
`logps.reference_logps`).
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group, epochs, microbatches
from dapflow.tasks.models.packed.logps import (
    Scorer,
    attention_of,
    pick_scorer,
    sequence_logps,
    sum_by_answer,
)
from dapflow.tasks.models.parameters import checkpointed
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.training import checkpoints
from dapflow.tasks.training.logs import StepLog, displacement, means, models_held, peak_memory_gib
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer.optimizer import Optimizer, pick_optimizer
from dapflow.tasks.training.processes.ranks import ALONE, Ranks
from dapflow.tasks.training.processes.sharding import shard
from dapflow.tasks.training.settings import Training

# steps: whether chosen answers lose probability under a loss that has no reference costs a forward
# of one batch
_PROBED_EVERY = 20


def fit(
    model: PreTrainedModel,
    groups: Sequence[Group],
    loss: Loss,
    settings: Training,
    *,
    seed: int,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    ranks: Ranks = ALONE,
) -> list[StepLog]:
    """Train `model` (in place, cast to the settings' dtype) and return the logs of every step,
    those before a resume included.

    Started again after a kill with the same arguments, it goes on from the newest whole checkpoint;
    `on_step` then sees the steps after that checkpoint once more. Several processes that call it
    with the same arguments and their own `ranks` share each batch. Raises UserError where groups
    lack what the loss needs, where the checkpoints belong to another run, and where a loss or
    gradient is not finite (it names the rows; the checkpoints before it stay).
    """
    _check(groups, loss)
    model.eval()  # dropout off: the log-probs of the policy are those of the reference at the start
    dtype = settings.torch_dtype(model.device)
    torch.nn.Module.to(
        model, torch.float32 if ranks.sharded else dtype
    )  # shards are fp32 masters, gathered in dtype
    scorer = pick_scorer(model)
    attention = attention_of(scorer, model)
    if ranks.sharded:
        scorer = shard(model, scorer, dtype)
    optimizer = pick_optimizer(model, settings, seed, ranks)
    run = _fingerprint(groups, loss, settings, seed, ranks)
    logs = _resume(checkpoint_dir, optimizer, run, ranks)
    batches, saved = (
        list(epochs(len(groups), settings.batch_size, settings.epochs, seed)),
        time.monotonic(),
    )
    with attention, checkpointed(model, settings.gradient_checkpointing):
        for step, (epoch, indices) in list(enumerate(batches))[len(logs) :]:
            rate = settings.learning_rate_at(step, len(batches))
            batch = [groups[index] for index in indices]
            late = time.monotonic() - saved > 60 * settings.checkpoint_every_minutes
            log, late = train_step(
                model,
                batch,
                loss,
                settings,
                scorer,
                optimizer,
                rate,
                seed,
                step,
                epoch,
                ranks,
                late,
            )
            if (
                step
                and not loss.registered.needs_reference
                and ((step + 1) % _PROBED_EVERY == 0 or step + 1 == len(batches))
            ):
                first = [groups[index] for index in batches[0][1]]
                gained = _chosen_logp(model, first, scorer, settings) - logs[0].logp_chosen
                log = replace(
                    log,
                    warnings=(
                        *log.warnings,
                        *displacement(gained, settings, "since the first step"),
                    ),
                )
            logs.append(log)
            if on_step is not None:
                on_step(log)
            if checkpoint_dir is not None and (
                late or (step + 1) % settings.checkpoint_every_steps == 0
            ):
                state = {"run": run, "logs": [asdict(log) for log in logs]}
                checkpoints.save(checkpoint_dir, step + 1, optimizer.state(), state, ranks)
                saved = time.monotonic()
    return logs


def train_step(
    model: PreTrainedModel,
    batch: Sequence[Group],
    loss: Loss,
    settings: Training,
    scorer: Scorer,
    optimizer: Optimizer,
    learning_rate: float,
    seed: int,
    step: int,
    epoch: int,
    ranks: Ranks,
    late: bool,
) -> tuple[StepLog, bool]:
    """Its log, and whether a checkpoint is due by the clock of the first process."""
    start = time.perf_counter()
    sizes = [len(group.answers) for group in batch]
    length = sum(len(answer) for group in batch for answer in group.answers[:2]) / len(batch)
    table = torch.zeros(
        sum(sizes) + len(batch) + 4, device=model.device
    )  # what each process finds of its groups
    policies, losses = table[: sum(sizes)].split(sizes), table[sum(sizes) : -4]
    ratios, entropy, due = table[-4:-2], table[-2], table[-1]
    for part in ranks.parts(batch, settings.tokens_per_microbatch):
        some = [batch[index] for index in part.indices]
        logps, entropies = _score(
            model,
            some,
            loss,
            scorer,
            length,
            random_seed=derive_seed(seed, "alternatives", step, *some[0].row_ids),
        )
        each = torch.cat([loss(group) for group in logps])
        check_finite(each.sum().item(), some, step)
        (
            part.weight * each.sum() / len(batch)
        ).backward()  # of the whole batch, so that micro-batches do not change the mean
        if part.weight:
            entropy += entropies.sum()
            losses[part.indices] = each.detach()
            for index, group in zip(part.indices, logps, strict=True):
                policies[index].copy_(group.policy[0].detach())
                if loss.critic is not None:
                    assert group.tokens is not None and group.experience is not None
                    ratios += loss.critic.ratio_figures(group.tokens, group.experience.logps)
    due.fill_(float(late and ranks.first))
    ranks.add_up([table])
    norm = optimizer.step(learning_rate)
    check_finite(norm, batch, step)
    ordered, tokens = (
        list(policies),
        sum(len(answer) for group in batch for answer in group.answers),
    )
    clipped, approx_kl = (
        (ratios / tokens).tolist() if loss.registered.needs_values else (None, None)
    )
    measured = means(batch, ordered)
    seconds = time.perf_counter() - start
    models, model_bytes = models_held(step)
    log = StepLog(
        step=step,
        epoch=epoch,
        loss=(losses.sum() / len(batch)).item(),
        logp_chosen=math.fsum(policy[0].item() for policy in ordered) / len(batch),
        **measured,
        entropy=entropy.item() / tokens,
        clip_fraction=clipped,
        approx_kl=approx_kl,
        gradient_norm=norm,
        learning_rate=learning_rate,
        tokens_per_second=sum(group.tokens for group in batch) / seconds,
        peak_memory_gib=peak_memory_gib(model.device),
        models=models,
        model_bytes=model_bytes,
        warnings=displacement(measured["reward_chosen"], settings),
    )
    return log, bool(due.item())


def _score(
    model: PreTrainedModel,
    groups: Sequence[Group],
    loss: Loss,
    scorer: Scorer,
    length: float,
    random_seed: int,
) -> tuple[list[Logps], Tensor]:
    """What the loss sees of each group, [1, answers], which may differ in length between groups;
    and the entropies, [tokens].
    """
    draw, alternatives = None, loss.alternatives
    if alternatives is not None:
        random = torch.Generator(model.device).manual_seed(random_seed)
        draw = partial(alternatives.draw, random=random)
    tokens, entropies = scorer(model, groups, draw)
    penalties = (
        None
        if alternatives is None
        else sum_by_answer(alternatives.penalty(tokens[0], tokens[1]), groups)
    )
    policies = sum_by_answer(tokens[0], groups)
    by_group = tokens[0].split([sum(map(len, group.answers)) for group in groups])

    def row(values: Sequence[float] | None) -> Tensor | None:
        return None if values is None else tokens.new_tensor([values])

    logps = [
        Logps(
            policy=policies[index][None],
            length=tokens.new_tensor([[len(answer) for answer in group.answers]]),
            reference=row(group.reference),
            rewards=row(group.rewards),
            cringe=None if penalties is None else penalties[index][None],
            preference=None if group.preference is None else tokens.new_tensor([group.preference]),
            batch_length=tokens.new_tensor([length]),
            tokens=by_group[index] if loss.registered.needs_values else None,
            experience=group.experience,
        )
        for index, group in enumerate(groups)
    ]
    return logps, entropies


@torch.no_grad()
def _chosen_logp(
    model: PreTrainedModel, groups: Sequence[Group], scorer: Scorer, settings: Training
) -> float:
    """log p of the chosen answers, mean over groups: a loss without a reference does not say
    whether they have become unlikely.
    """
    parts = microbatches(groups, settings.tokens_per_microbatch)
    found = [
        logps[0].item()
        for part in parts
        for logps in sequence_logps(model, [groups[index] for index in part], scorer)
    ]
    return math.fsum(found) / len(found)


def _check(groups: Sequence[Group], loss: Loss) -> None:
    if not groups:
        raise UserError("There is nothing to train on: no pair is left after judging and pairing.")
    needs = loss.registered
    for group in groups:
        if len(group.answers) < needs.answers:
            raise UserError(
                f"The loss {loss.name} needs {needs.answers} answers, but {', '.join(group.row_ids)} has {len(group.answers)}."
            )
        if needs.needs_reference and group.reference is None:
            raise UserError(
                f"The loss {loss.name} needs a reference, but {', '.join(group.row_ids)} has no reference log-probabilities."
            )
        if needs.needs_values and group.experience is None:
            raise UserError(
                f"The loss {loss.name} needs a value model, which only rounds train: set data to rounds."
            )


def check_finite(value: float, groups: Sequence[Group], step: int) -> None:
    """Raises UserError that names the rows of what is not finite."""
    if not math.isfinite(value):
        rows = ", ".join(row for group in groups for row in group.row_ids)
        raise UserError(
            f"The loss or its gradient is not finite at step {step}; look at these rows or lower the learning rate: {rows}."
        )


def _fingerprint(
    groups: Sequence[Group], loss: Loss, settings: Training, seed: int, ranks: Ranks
) -> str:
    shards = f" in {ranks.world} shards" if ranks.sharded else ""
    digest = hashlib.sha256(
        f"{loss.model_dump_json()} {settings.model_dump_json()} {seed}{shards}".encode()
    )
    for group in groups:
        digest.update(repr(group).encode())
    return digest.hexdigest()


def _resume(folder: Path | None, optimizer: Optimizer, run: str, ranks: Ranks) -> list[StepLog]:
    found = None if folder is None else checkpoints.load(folder, ranks)
    if found is None:
        return []
    tensors, state = found
    if state["run"] != run:
        raise UserError(
            f"The checkpoints in {folder} are of another run (other data, loss, settings or seed): remove them or use another folder."
        )
    optimizer.load(tensors)
    return [StepLog.read(log) for log in state["logs"]]

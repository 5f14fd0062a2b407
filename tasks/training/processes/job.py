"""A training run as a value and as files: what several processes are told, and what one process
does with it.

    job.json, groups.parquet  ->  partial-policy/, checkpoints
Test: pytest tests/tasks/training/processes/test_processes.py
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dapflow.tasks.models.directory import files_digest
from dapflow.tasks.models.names import Loaded, load_own, save
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.parameters import ADAPTER, merge, save_adapter, trainable
from dapflow.tasks.models.probe import save_probe
from dapflow.tasks.training.fit import Session, fit
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.processes.ranks import ALONE, Ranks
from dapflow.tasks.training.processes.sharding import gather
from dapflow.tasks.training.settings import Training

_GROUPS = pa.schema(
    [
        ("prompt", pa.list_(pa.int32())),
        ("answers", pa.list_(pa.list_(pa.int32()))),
        ("row_ids", pa.list_(pa.string())),
        ("reference", pa.list_(pa.float64())),
        ("rewards", pa.list_(pa.float64())),
        ("preference", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A policy (a model directory), what it is to learn from, and how."""

    policy: Path
    groups: Sequence[Group]
    loss: Loss
    training: Training
    seed: int

    def write(self, folder: Path) -> None:
        """As files in `folder`."""
        rows = [{name: getattr(group, name) for name in _GROUPS.names} for group in self.groups]
        pq.write_table(pa.Table.from_pylist(rows, schema=_GROUPS), folder / "groups.parquet")
        plain = {
            "policy": str(self.policy),
            "loss": self.loss.model_dump(),
            "training": self.training.model_dump(),
            "seed": self.seed,
        }
        (folder / "job.json").write_text(json.dumps(plain))

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """What `write` wrote."""
        plain = json.loads((folder / "job.json").read_text())
        return cls(
            policy=Path(plain["policy"]),
            groups=[_group(row) for row in pq.read_table(folder / "groups.parquet").to_pylist()],
            loss=Loss.model_validate(plain["loss"]),
            training=Training.model_validate(plain["training"]),
            seed=plain["seed"],
        )

    def run(
        self, folder: Path, on_step: Callable[[StepLog], None], ranks: Ranks = ALONE
    ) -> list[StepLog]:
        """Train a copy of the policy into folder/partial-policy, with checkpoints in `folder`, and
        return the logs. See `fit`.
        """
        loaded, training = load_own(self.policy), self.training
        model = trainable(loaded.model, training.parameters, training.lora_rank, self.seed)
        session = Session(checkpoint_dir=folder, on_step=on_step, ranks=ranks)
        logs = fit(model, self.groups, self.loss, training, seed=self.seed, session=session)
        if ranks.sharded:
            sharded, loaded = model, load_own(self.policy)
            model = trainable(loaded.model, training.parameters, training.lora_rank, self.seed)
            gather(sharded, model, first=ranks.first)
        if ranks.first:
            directory = folder / "partial-policy"
            directory.mkdir(exist_ok=True)
            save_adapter(model, directory / ADAPTER, files_digest(self.policy))
            merged = merge(model)
            save(Loaded(model=merged, tokenizer=loaded.tokenizer), directory)
            save_probe(directory, merged)
        return logs


def _group(row: dict[str, Any]) -> Group:
    several = {
        name: None if row[name] is None else tuple(row[name])
        for name in ("prompt", "row_ids", "reference", "rewards")
    }
    return Group(
        **several,  # pyright: ignore[reportArgumentType]
        answers=tuple(map(tuple, row["answers"])),
        preference=row["preference"],
    )

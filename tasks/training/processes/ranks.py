"""The processes that train one model together: who computes which groups, and how what they found
is added up.

`accelerate launch` starts them (tasks/training/processes/launch.py). Test: pytest
tests/tasks/training/processes/test_processes.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from dapflow.tasks.models.packed.batches import Group, microbatches


@dataclass(frozen=True, kw_only=True)
class Part:
    """A micro-batch: indices into the batch, and 0 as its weight where a process runs it only to
    keep step with the others.
    """

    indices: list[int]
    weight: int = 1


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `world` of them. `sharded`: each holds a part of every weight, and all
    must run in step.
    """

    rank: int = 0
    world: int = 1
    sharded: bool = False

    @classmethod
    def launched(cls, *, sharded: bool) -> Self:
        """Join the other processes of a launch: over NCCL with a GPU for each, else over gloo."""
        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(rank=state.process_index, world=state.num_processes, sharded=sharded)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def parts(self, batch: Sequence[Group], max_tokens: int) -> list[Part]:
        """This process's micro-batches: the groups are dealt out longest first, each to the process
        with the fewest tokens so far.
        """
        shares = [list[int]() for _ in range(self.world)]
        loads = [0] * self.world
        for index in sorted(range(len(batch)), key=lambda index: (-batch[index].tokens, index)):
            least = loads.index(min(loads))
            shares[least].append(index)
            loads[least] += batch[index].tokens
        cut = [
            [
                [share[i] for i in part]
                for part in microbatches([batch[i] for i in share], max_tokens)
            ]
            for share in shares
        ]
        own = [Part(indices=indices) for indices in cut[self.rank]]
        # A process without groups runs one of another's, so that the same weights get gradients
        # everywhere.
        idle = Part(indices=cut[self.rank][-1] if own else cut[0][-1], weight=0)
        steps = max(map(len, cut)) if self.sharded else 1
        return own + [idle] * (steps - len(own))

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.world > 1:
            started: list[Any] = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in started:
                work.wait()

    def first_says(self, answer: bool, device: torch.device) -> bool:
        """What the first process says, in all: of what each sees for itself, such as a clock."""
        heard = torch.tensor([float(answer and self.first)], device=device)
        self.add_up([heard])
        return bool(heard.item())

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()

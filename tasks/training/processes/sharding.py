"""A model in shards: each process holds a part of every weight, and a layer's are gathered while it
runs (FSDP, arXiv 2304.11277).

Test: pytest tests/tasks/training/processes/test_processes.py
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.head import Draw, TokenScores
from dapflow.tasks.models.packed.logps import Scorer

_METHOD = "score_groups"


def shard(model: PreTrainedModel, scorer: Scorer, dtype: torch.dtype) -> Scorer:
    """Leave each process its part of the fp32 weights, to be gathered in `dtype`; returns the
    scorer that gathers them.

    Gradients come as sums over all processes, in fp32.
    """
    mesh = init_device_mesh(
        "cuda" if torch.cuda.is_available() else "cpu", (torch.distributed.get_world_size(),)
    )
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32
    )
    layers = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def score_groups(groups: Sequence[Group], draw: Draw | None = None) -> TokenScores:
        logps, entropy = scorer(model, groups, draw)
        return TokenScores(logps.clone(), entropy)  # FSDP's hook on the output does not bear a view

    setattr(model, _METHOD, score_groups)
    register_fsdp_forward_method(model, _METHOD)

    def score(
        model: PreTrainedModel, groups: Sequence[Group], draw: Draw | None = None
    ) -> TokenScores:
        return getattr(model, _METHOD)(groups, draw)

    return score


@torch.no_grad()
def gather(sharded: PreTrainedModel, whole: PreTrainedModel, *, first: bool) -> None:
    """Copy the trained weights into `whole`, the same model unsharded, in the first process; all
    must call it.
    """
    weights = dict(whole.named_parameters())
    for name, parameter in sharded.named_parameters():
        if parameter.requires_grad:
            found: Any = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if first:
                weights[name].copy_(found)

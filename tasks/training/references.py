"""Groups with the log-probs of their answers under the reference, which the lake keeps: what it has
is not computed again.

Test: pytest tests/tasks/training/test_train.py
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from dapflow.storage import ModelRef
from dapflow.storage.logps import KeptLogps
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.models.policy import load_policy
from dapflow.tasks.step import Out

_KEEP_SECONDS = 10  # reference log-probs that a kill may cost


def with_reference(
    out: Out, reference: ModelRef, groups: Sequence[Group], dtype: torch.dtype
) -> list[Group]:
    """The groups with the reference's log-probs. Where the lake has all, no model is loaded."""
    digest = out.lake.model(reference)["digest"]
    kept = KeptLogps(out.lake, digest, str(dtype).removeprefix("torch."))
    known = kept.find(group.key for group in groups)
    missing = list({group.key: group for group in groups if group.key not in known}.values())
    if missing:
        model = load_policy(out.lake, reference, dtype).model
        fresh: dict[str, tuple[float, ...]] = {}
        since = time.monotonic()
        for done, (group, values) in enumerate(
            zip(missing, reference_logps(model, missing), strict=True), start=1
        ):
            fresh[group.key] = values
            if done == len(missing) or time.monotonic() - since > _KEEP_SECONDS:
                kept.keep(fresh)
                known, fresh, since = known | fresh, {}, time.monotonic()
            out.progress(done, len(missing), "reference pairs")
    return [replace(group, reference=known[group.key]) for group in groups]

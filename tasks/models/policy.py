"""Models enter the lake by name and leave it by reference.

register_model(name="embedded:smollm2-135m", digest=...)  ->  a model version without files of its own
"""

from pathlib import Path

import torch

from dapflow.storage import Lake, ModelRef, UserError
from dapflow.tasks.models.names import Loaded, load, resolve
from dapflow.tasks.step import Out, step


@step("models", title="policy {name}", expects=lambda **_: 1, activity="loading")
def register_model(out: Out, name: str, digest: str) -> None:
    """A model from outside: the lake keeps its name and the digest of its files, not the files."""
    row = {"id": out.row_id(0), "name": name, "role": "policy", "digest": digest}
    out.write(0, [row])


@step("models", title="endpoint {name}", expects=lambda **_: 1, activity="loading")
def register_endpoint(out: Out, name: str) -> None:
    """A model that only a server knows, by the server's name for it: it can be sampled from, and
    not be trained.
    """
    out.write(0, [{"id": out.row_id(0), "name": name, "role": "endpoint", "digest": name}])


def load_policy(lake: Lake, ref: ModelRef, dtype: torch.dtype | None = None) -> Loaded:
    """The weights and tokenizer of a policy version, kept in memory between steps. dtype: None for
    the fastest this machine has.

    Raises UserError when a model from outside is no longer what the version was made with.
    """
    return load(policy_path(lake, ref), dtype=dtype)


def policy_path(lake: Lake, ref: ModelRef) -> Path:
    """The directory with a policy version's files. Raises UserError as `load_policy` does."""
    row = lake.model(ref)
    if row["path"] is not None:
        return row["path"]
    files = resolve(row["name"])
    if files.digest != row["digest"]:
        raise UserError(
            f"The model {row['name']} has changed since this run began (digest "
            f"{files.digest[:16]}, was {row['digest'][:16]}): run again."
        )
    return files.path

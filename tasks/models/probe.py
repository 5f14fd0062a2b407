"""The probe of a policy: some tokens and their log-probabilities under its weights, kept beside
them.

Whoever claims to sample from the policy is asked for the same. Test: make test-vllm
"""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from dapflow.tasks.models.names import load
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import padded_token_logps

FILE = "probe.json"
_TOKENS = 24

Probe = tuple[list[int], list[float]]
"""Token ids, and log p of each after the first given those before it."""


@torch.no_grad()
def take_probe(model: PreTrainedModel) -> Probe:
    """The probe under a model in memory."""
    vocabulary = model.config.get_text_config().vocab_size
    token_ids = [(11 + 7919 * place) % vocabulary for place in range(_TOKENS)]
    group = Group(prompt=tuple(token_ids[:1]), answers=(tuple(token_ids[1:]),), row_ids=("probe",))
    return token_ids, padded_token_logps(model, [group]).logps[0].tolist()


def save_probe(directory: Path, model: PreTrainedModel) -> None:
    """Keep the probe beside the weights."""
    token_ids, logprobs = take_probe(model)
    (directory / FILE).write_text(json.dumps({"token_ids": token_ids, "logprobs": logprobs}))


def probe_of(directory: Path) -> Probe:
    """The probe of a model directory: what its trainer kept, else what its weights give."""
    file = directory / FILE
    if file.is_file():
        kept = json.loads(file.read_text())
        return kept["token_ids"], kept["logprobs"]
    return take_probe(load(directory).model)

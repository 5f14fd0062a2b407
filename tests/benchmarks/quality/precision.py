"""What bf16 weights lose against fp32 ones, with masters, with stochastic rounding and with
neither: python -m tests.benchmarks.quality.precision

DPO of a small model (4 layers of width 256, 5 M weights) on random pairs, the same batches for all,
several models. Prints the loss and margin that each ends with, how far its curve lies from that of
fp32, and the bytes of weights and optimiser for each parameter.
"""

import argparse
from dataclasses import replace
from statistics import fmean
from unittest import mock

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.training.fit import fit
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer.rounded import round_stochastically
from dapflow.tasks.training.settings import Training
from tests.benchmarks.speed.training import random_groups

SMALL = LlamaConfig(
    vocab_size=49152 // 8,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=4,
    tie_word_embeddings=True,
)
NEAREST = "bf16, to the nearest"  # what plain AdamW of a model in bf16 does
RUNS = {
    "fp32": {"dtype": "float32"},
    "bf16, masters": {"dtype": "bfloat16", "weights": "master"},
    "bf16, stochastic": {"dtype": "bfloat16", "weights": "stochastic"},
    NEAREST: {"dtype": "bfloat16", "weights": "stochastic"},
}
BYTES = {
    "fp32": 16,
    "bf16, masters": 18,
    "bf16, stochastic": 14,
    NEAREST: 14,
}  # weight, gradient in fp32, two moments, and the master


def model_of(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(SMALL, dtype=torch.float32)


def train(settings: dict[str, str], steps: int, seed: int) -> list[StepLog]:
    groups = [
        replace(
            g,
            prompt=tuple(t % SMALL.vocab_size for t in g.prompt),
            answers=tuple(tuple(t % SMALL.vocab_size for t in a) for a in g.answers),
        )
        for g in random_groups(32, 12, 16)
    ]
    groups = [
        replace(g, reference=r)
        for g, r in zip(groups, reference_logps(model_of(seed), groups), strict=True)
    ]
    training = Training(
        batch_size=8, learning_rate=1e-5, epochs=-(-8 * steps // len(groups)), **settings
    )  # type: ignore[arg-type]
    return fit(model_of(seed), groups, Loss.of("sigmoid_norm"), training, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--models", type=int, default=3)
    arguments = parser.parse_args()
    exact = [train(RUNS["fp32"], arguments.steps, seed) for seed in range(arguments.models)]
    for name, settings in RUNS.items():
        rounding = (
            {"side_effect": lambda values, random: values.to(torch.bfloat16)}
            if name == NEAREST
            else {"wraps": round_stochastically}
        )
        with mock.patch(
            "dapflow.tasks.training.optimizer.rounded.round_stochastically", **rounding
        ):
            found = (
                exact
                if name == "fp32"
                else [train(settings, arguments.steps, seed) for seed in range(arguments.models)]
            )
        loss = fmean(log.loss for logs in found for log in logs[-8:])
        margin = fmean(log.margin or 0.0 for logs in found for log in logs[-8:])
        off = fmean(
            abs(a.loss - b.loss)
            for own, other in zip(found, exact, strict=True)
            for a, b in zip(own, other, strict=True)
        )
        print(
            f"{name:<20} last 8 steps: loss {loss:.4f}, margin {margin:.3f}; {off:.5f} from fp32; {BYTES[name]} bytes a parameter",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""DPO beside TRL's trainer: the same model, pairs, order, batch and steps, each trainer in a
process of its own, in turns.

    pip install trl==1.16.0
    python -m tests.benchmarks.speed.against_trl            # pairs/s and peak memory, medians of 3
    python -m tests.benchmarks.speed.against_trl --curves   # the loss of 20 steps of both, in fp32
On a GPU where there is one, and then the peak is of its memory. This engine trains as it does by
default here: in bf16 with stochastic rounding where the machine is fast in it, else in fp32. TRL
trains in three ways: by its defaults (`trl`: weights in fp32, bf16 by autocast, gradient
checkpointing); by them without checkpointing (`trl-mixed`); and with weights and moments in bf16 as
well (`trl-bf16`), fastest, but such weights hardly move (tests/benchmarks/quality/precision.py: "to
the nearest"). The first step of each, which loads and allocates, is left out of the time. Our time
includes the reference's forward passes; TRL's are in its steps.
"""

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from dapflow.tasks.models.dtypes import fast_dtype
from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.seeds import generator
from dapflow.tasks.training.fit import Session, fit
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Training

MODEL = "embedded:smollm2-135m"
BETA, RATE, SEED = 0.1, 1e-6, 0
GPU = torch.cuda.is_available()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Tokens of a prompt and of each of its two answers, the end-of-sequence token included."""

    prompt: int
    answer: int


TINY = {"tiny": Shape(prompt=24, answer=16)}  # for the loss curves
SHAPES = {
    "short prompts": Shape(prompt=66, answer=128),
    "long prompts": Shape(prompt=330, answer=40),
}


def texts(tokenizer: Any, shape: Shape, pairs: int) -> list[dict[str, str]]:
    """Pairs of words that are one token each, so that both trainers see the same tokens. In the
    order of training.
    """
    words = sorted(
        text
        for text in tokenizer.get_vocab()
        if text.startswith("Ġ") and text[1:].isascii() and text[1:].isalpha()
    )
    draw = random.Random(SEED)

    def text(count: int) -> str:
        return "".join(" " + draw.choice(words)[1:] for _ in range(count))

    return [
        {
            "prompt": text(shape.prompt),
            "chosen": text(shape.answer - 1),
            "rejected": text(shape.answer - 1),
        }
        for _ in range(pairs)
    ]


def ours(model: str, pairs: int, batch: int, shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    """Train with this engine."""
    loaded = load(resolve(model).path, dtype=dtype)
    rows = texts(loaded.tokenizer, shape, pairs)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    end = loaded.tokenizer.eos_token_id
    groups = [
        Group(
            prompt=ids(row["prompt"]),
            answers=((*ids(row["chosen"]), end), (*ids(row["rejected"]), end)),
            row_ids=(str(place),),
        )
        for place, row in enumerate(rows)
    ]
    assert {len(group.prompt) for group in groups} == {shape.prompt}
    assert {len(answer) for group in groups for answer in group.answers} == {shape.answer}
    order = list(range(pairs))
    generator(SEED, "training order", 0).shuffle(
        order
    )  # so that `fit` comes to the rows' own order
    placed = [groups[0]] * pairs
    for place, index in enumerate(order):
        placed[index] = groups[place]
    list(reference_logps(loaded.model, groups[:2]))  # loads and allocates
    ends = [time.perf_counter()]
    referenced = [
        replace(group, reference=value)
        for group, value in zip(placed, reference_logps(loaded.model, placed), strict=True)
    ]
    referencing = time.perf_counter() - ends[0]
    settings = Training(
        batch_size=batch, learning_rate=RATE, dtype=str(dtype).removeprefix("torch.")
    )  # type: ignore[arg-type]

    def on_step(log: StepLog) -> None:
        ends.append(time.perf_counter())

    logs = fit(
        loaded.model,
        referenced,
        Loss.of("sigmoid_norm", beta=BETA),
        settings,
        seed=SEED,
        session=Session(on_step=on_step),
    )
    return {"seconds": referencing + _all_steps(ends[1:]), "losses": [log.loss for log in logs]}


def theirs(
    model: str, pairs: int, batch: int, shape: Shape, dtype: torch.dtype, **settings: bool
) -> dict[str, Any]:
    """Train with TRL."""
    warnings.simplefilter("ignore")
    loaded = load(resolve(model).path, dtype=dtype)
    import datasets
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    torch.use_deterministic_algorithms(False)  # `load` asks for them on a GPU
    ends = list[float]()

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize() if GPU else None
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, per_device_train_batch_size=batch, learning_rate=RATE, beta=BETA, num_train_epochs=1, use_cpu=not GPU,
            lr_scheduler_type="constant", report_to="none", logging_steps=1, save_strategy="no", train_sampling_strategy="sequential",
            disable_tqdm=True, max_length=None, seed=SEED, **settings,
        )  # fmt: skip
        rows = datasets.Dataset.from_list(texts(loaded.tokenizer, shape, pairs))
        trainer = DPOTrainer(
            model=loaded.model,
            args=config,
            train_dataset=rows,
            processing_class=loaded.tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": _all_steps(ends), "losses": losses}


TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": partial(ours, dtype=fast_dtype(torch.device("cuda" if GPU else "cpu"))),
    "trl": partial(theirs, dtype=torch.float32),
    "trl-mixed": partial(theirs, dtype=torch.float32, gradient_checkpointing=False),
    "trl-bf16": partial(theirs, dtype=torch.bfloat16, gradient_checkpointing=False, bf16=False),
}
IN_FP32 = {
    "ours-fp32": partial(ours, dtype=torch.float32),
    "trl-fp32": partial(theirs, dtype=torch.float32, gradient_checkpointing=False, bf16=False),
}


def _all_steps(ends: list[float]) -> float:
    """Seconds of all steps by when each ended, the first as long as the others."""
    return (ends[-1] - ends[0]) * len(ends) / (len(ends) - 1)


def peak_gib() -> float:
    """Of this process: GPU memory, or all its memory where there is none."""
    used = (
        torch.cuda.max_memory_allocated()
        if GPU
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return used / 2**30


def run(trainer: str, shape: str, pairs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a trainer measures in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.speed.against_trl",
        "--trainer",
        trainer,
        "--pairs",
        str(pairs),
        "--shape",
        shape,
    ]
    command += ["--model", arguments.model, "--batch", str(arguments.batch)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout.splitlines()[-1])


def compare(arguments: argparse.Namespace) -> None:
    """Pairs/s and peak memory of all, in turns."""
    pairs, repeats = arguments.pairs, arguments.repeats
    for name, shape in SHAPES.items():
        found = [
            {trainer: run(trainer, name, pairs, arguments) for trainer in arguments.trainers}
            for _ in range(repeats)
        ]
        print(
            f"{name}: {pairs} pairs of {shape.prompt} + 2 x {shape.answer} tokens, {arguments.batch} a step, medians of {repeats}"
        )
        for trainer in arguments.trainers:
            of = [one[trainer] for one in found]
            own = [one["ours"] for one in found]
            speed = median(pairs / one["seconds"] for one in of)
            memory = median(one["peak_gib"] for one in of)
            faster = median(
                one["seconds"] / mine["seconds"] for one, mine in zip(of, own, strict=True)
            )
            leaner = median(
                mine["peak_gib"] / one["peak_gib"] for one, mine in zip(of, own, strict=True)
            )
            compared = (
                f"; ours {faster:.2f} x its speed, {leaner:.2f} x its memory"
                if trainer != "ours"
                else ""
            )
            print(
                f"  {trainer:<9} {speed:.3f} pairs/s, peak memory {memory:.2f} GiB{compared}",
                flush=True,
            )


def curves(steps: int, arguments: argparse.Namespace) -> None:
    """The losses of both in fp32, step by step."""
    found = [
        run(trainer, "tiny", steps * arguments.batch, arguments)["losses"] for trainer in IN_FP32
    ]
    for step, (own, other) in enumerate(zip(*found, strict=True)):
        print(f"step {step:>3}  ours {own:.5f}  trl {other:.5f}  difference {abs(own - other):.5f}")
    print(
        f"largest difference {max(abs(own - other) for own, other in zip(*found, strict=True)):.5f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--trainer", choices=TRAINERS | IN_FP32, help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES | TINY, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trainer:
        train = (TRAINERS | IN_FP32)[arguments.trainer]
        found = train(
            arguments.model, arguments.pairs, arguments.batch, (SHAPES | TINY)[arguments.shape]
        )
        assert all(math.isfinite(loss) for loss in found["losses"])
        print(json.dumps(found | {"peak_gib": peak_gib()}))
    elif arguments.curves:
        curves(20, arguments)
    else:
        arguments.trainers = ["ours", *(name for name in arguments.trainers if name != "ours")]
        compare(arguments)


if __name__ == "__main__":
    main()

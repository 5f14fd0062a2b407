"""DPO beside TRL's trainer: the same model, pairs, order, batch and steps, each trainer in a process of its own, in turns.

    pip install trl==1.16.0
    python -m tests.benchmarks.against_trl                    # pairs/s and peak memory, medians of 3
    python -m tests.benchmarks.against_trl --dtype checkpoint # TRL in the checkpoint's bf16, this engine in what the machine is fast in
    python -m tests.benchmarks.against_trl --curves           # the loss of 20 steps of both, in fp32
On a GPU where there is one, and then the peak is of its memory. TRL runs with its defaults, gradient checkpointing off and, with a
checkpoint in bf16, weights and moments in bf16. The first step of both, which loads and allocates, is left out of the time. Our time
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
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from tasks.models import load, resolve
from tasks.seeds import generator
from tasks.training.batches import Group
from tasks.training.fit import fit
from tasks.training.logps import reference_logps
from tasks.training.logs import StepLog
from tasks.training.losses import Loss
from tasks.training.settings import Training, fast_dtype

MODEL = "embedded:smollm2-135m"
BETA, RATE, SEED = 0.1, 1e-6, 0
GPU = torch.cuda.is_available()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Tokens of a prompt and of each of its two answers, the end-of-sequence token included."""

    prompt: int
    answer: int


TINY = {"tiny": Shape(prompt=24, answer=16)}  # for the loss curves
SHAPES = {"short prompts": Shape(prompt=66, answer=128), "long prompts": Shape(prompt=330, answer=40)}


def texts(tokenizer: Any, shape: Shape, pairs: int) -> list[dict[str, str]]:
    """Pairs of words that are one token each, so that both trainers see the same tokens. In the order of training."""
    words = sorted(text for text in tokenizer.get_vocab() if text.startswith("Ġ") and text[1:].isascii() and text[1:].isalpha())
    draw = random.Random(SEED)

    def text(count: int) -> str:
        return "".join(" " + draw.choice(words)[1:] for _ in range(count))

    return [{"prompt": text(shape.prompt), "chosen": text(shape.answer - 1), "rejected": text(shape.answer - 1)} for _ in range(pairs)]


def ours(model: str, pairs: int, batch: int, shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    """Train with this engine."""
    loaded = load(resolve(model).path, dtype=dtype)
    rows = texts(loaded.tokenizer, shape, pairs)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    end = loaded.tokenizer.eos_token_id
    groups = [
        Group(prompt=ids(row["prompt"]), answers=((*ids(row["chosen"]), end), (*ids(row["rejected"]), end)), row_ids=(str(place),))
        for place, row in enumerate(rows)
    ]
    assert {len(group.prompt) for group in groups} == {shape.prompt}
    assert {len(answer) for group in groups for answer in group.answers} == {shape.answer}
    order = list(range(pairs))
    generator(SEED, "training order", 0).shuffle(order)  # so that `fit` comes to the rows' own order
    placed = [groups[0]] * pairs
    for place, index in enumerate(order):
        placed[index] = groups[place]
    list(reference_logps(loaded.model, groups[:2]))  # loads and allocates
    ends = [time.perf_counter()]
    referenced = [replace(group, reference=value) for group, value in zip(placed, reference_logps(loaded.model, placed), strict=True)]
    referencing = time.perf_counter() - ends[0]
    settings = Training(batch_size=batch, learning_rate=RATE, dtype=str(dtype).removeprefix("torch."))  # type: ignore[arg-type]

    def on_step(log: StepLog) -> None:
        ends.append(time.perf_counter())

    logs = fit(loaded.model, referenced, Loss.of("sigmoid_norm", beta=BETA), settings, seed=SEED, on_step=on_step)
    return {"seconds": referencing + _all_steps(ends[1:]), "losses": [log.loss for log in logs]}


def _all_steps(ends: list[float]) -> float:
    """Seconds of all steps by when each ended, the first as long as the others."""
    return (ends[-1] - ends[0]) * len(ends) / (len(ends) - 1)


def theirs(model: str, pairs: int, batch: int, shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
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
        settings = DPOConfig(
            output_dir=folder, per_device_train_batch_size=batch, learning_rate=RATE, beta=BETA, num_train_epochs=1, use_cpu=not GPU,
            bf16=False, gradient_checkpointing=False, lr_scheduler_type="constant", report_to="none", logging_steps=1, save_strategy="no",
            train_sampling_strategy="sequential", disable_tqdm=True, max_length=None, seed=SEED,
        )  # fmt: skip
        rows = datasets.Dataset.from_list(texts(loaded.tokenizer, shape, pairs))
        trainer = DPOTrainer(model=loaded.model, args=settings, train_dataset=rows, processing_class=loaded.tokenizer, callbacks=[Clock()])
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": _all_steps(ends), "losses": losses}


def peak_gib() -> float:
    """Of this process: GPU memory, or all its memory where there is none."""
    used = torch.cuda.max_memory_allocated() if GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return used / 2**30


def run(trainer: str, shape: str, pairs: int, arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """What a trainer measures in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.against_trl", "--trainer", trainer, "--pairs", str(pairs), "--shape", shape]
    command += ["--dtype", dtype, "--model", arguments.model, "--batch", str(arguments.batch)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout.splitlines()[-1])


def compare(arguments: argparse.Namespace) -> None:
    """Pairs/s and peak memory of both, in turns."""
    pairs, repeats = arguments.pairs, arguments.repeats
    for name, shape in SHAPES.items():
        found = [{trainer: run(trainer, name, pairs, arguments, arguments.dtype) for trainer in ("ours", "trl")} for _ in range(repeats)]
        tokens = f"{pairs} pairs of {shape.prompt} + 2 x {shape.answer} tokens"
        print(f"{name}: {tokens}, {arguments.batch} a step, {arguments.dtype}, medians of {repeats}")
        for trainer in ("trl", "ours"):
            speed = median(pairs / one[trainer]["seconds"] for one in found)
            memory = median(one[trainer]["peak_gib"] for one in found)
            print(f"  {trainer:<5} {speed:.3f} pairs/s, peak memory {memory:.2f} GiB")
        speed = median(one["trl"]["seconds"] / one["ours"]["seconds"] for one in found)
        memory = median(one["ours"]["peak_gib"] / one["trl"]["peak_gib"] for one in found)
        print(f"  ratio {speed:.2f} x the speed, {memory:.2f} x the memory", flush=True)


def curves(steps: int, arguments: argparse.Namespace) -> None:
    """The losses of both, step by step."""
    pairs = steps * arguments.batch
    found = {trainer: run(trainer, "tiny", pairs, arguments, "float32")["losses"] for trainer in ("ours", "trl")}
    for step, (own, other) in enumerate(zip(found["ours"], found["trl"], strict=True)):
        print(f"step {step:>3}  ours {own:.5f}  trl {other:.5f}  difference {abs(own - other):.5f}")
    print(f"largest difference {max(abs(a - b) for a, b in zip(found['ours'], found['trl'], strict=True)):.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "checkpoint"], default="float32")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--trainer", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES | TINY, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trainer:
        train = ours if arguments.trainer == "ours" else theirs
        chosen = {"ours": fast_dtype(torch.device("cuda" if GPU else "cpu")), "trl": torch.bfloat16}[arguments.trainer]
        dtype = chosen if arguments.dtype == "checkpoint" else getattr(torch, arguments.dtype)
        found = train(arguments.model, arguments.pairs, arguments.batch, (SHAPES | TINY)[arguments.shape], dtype)
        assert all(math.isfinite(loss) for loss in found["losses"])
        print(json.dumps(found | {"peak_gib": peak_gib()}))
    elif arguments.curves:
        curves(20, arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()

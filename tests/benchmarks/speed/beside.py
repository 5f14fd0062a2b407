"""What the threads' setting costs alone, and what one busy process of equal priority costs beside
it: of training, and of sampling.

Run: python -m tests.benchmarks.speed.beside [--spin 1000 30000] [--runs 5]   (about three minutes; nothing else may run)

Every setting works in a process of its own, all of which stay and take turns: a step alone, then
one beside a busy loop in Python. Medians of the ratios within a turn. On two cores, a third more is
what a fair share of them comes to. The goal: at most 3 % alone, 1.9 times beside. Two cores,
nothing else running, medians of three turns; alone as it comes 1, beside it (beside / alone):
    GOMP_SPINCOUNT   as it comes    100            1,000          3,000          10,000         30,000
    training         1 (2.3, 2.5)   1.07 (1.75)    1.04 (1.83)    1.02 (1.92)    1.01 (2.08)    0.99 (2.50)
    sampling         1 (3.6, 3.8)   1.24 (1.48)    1.20 (1.59)    1.08 (1.89)    1.01 (2.52)    1.01 (3.65)
No count meets both goals in both. 3,000 does for training, but for 0.02 beside; sampling, which
waits far more often, pays 8 % alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dapflow.flows.server.environment import thread_defaults

SPIN, PLAIN = "GOMP_SPINCOUNT", "as it comes"
LAYERS, PAIRS, ROWS, TOKENS = (
    8,
    4,
    32,
    24,
)  # of SmolLM2-135M's thirty; of an optimiser step; of the sampling, and of each of its rows
WORKS = ("training", "sampling")


def main(spin: list[str], runs: int) -> None:
    """Print a line for each kind of work and setting."""
    settings = {PLAIN: None, **{f"{SPIN}={count}": count for count in spin}}
    workers = {name: _start(count) for name, count in settings.items()}
    try:
        for work in WORKS:
            for worker in workers.values():
                _seconds(worker, work)  # the first one allocates
            _compare(workers, work, runs)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _compare(workers: dict[str, subprocess.Popen[str]], work: str, runs: int) -> None:
    alone = {name: list[float]() for name in workers}
    beside = {name: list[float]() for name in workers}
    for _ in range(runs):
        for name, worker in workers.items():
            alone[name].append(_seconds(worker, work))
        with _busy():
            for name, worker in workers.items():
                beside[name].append(_seconds(worker, work))
    for name in workers:
        cost = statistics.median(
            own / plain for own, plain in zip(alone[name], alone[PLAIN], strict=True)
        )
        ratio = statistics.median(
            busy / own for busy, own in zip(beside[name], alone[name], strict=True)
        )
        times = f"{statistics.median(alone[name]):.2f} s alone, {statistics.median(beside[name]):.2f} s beside"
        print(
            f"{work}, {name}: {times}; alone / {PLAIN} {cost:.3f}, beside / alone {ratio:.2f}",
            flush=True,
        )


def _start(spin: str | None) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    environment |= {} if spin is None else {SPIN: spin}
    command = [sys.executable, "-m", "tests.benchmarks.speed.beside", "--work"]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _seconds(worker: subprocess.Popen[str], work: str) -> float:
    assert worker.stdin is not None and worker.stdout is not None
    print(work, file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


@contextmanager
def _busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        time.sleep(0.3)  # it has begun
        yield
    finally:
        process.kill()
        process.wait()


def work() -> None:
    """Do what each line that comes in names, and print its seconds."""
    works = _works()
    for line in sys.stdin:
        begin = time.perf_counter()
        works[line.strip()]()
        print(time.perf_counter() - begin, flush=True)


def _works() -> dict[str, Callable[[], object]]:
    from dataclasses import replace

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from dapflow.tasks.models.dtypes import fast_dtype
    from dapflow.tasks.models.names import Loaded, load, resolve
    from dapflow.tasks.sampling.engines.base import Request, Sampling
    from dapflow.tasks.sampling.engines.transformers import TransformersEngine
    from dapflow.tasks.training.fit import fit
    from dapflow.tasks.training.losses.loss import Loss
    from dapflow.tasks.training.settings import Training
    from tests.benchmarks.speed.training import CPU, SHAPES, SMOLLM2, random_groups

    torch.manual_seed(0)
    config = LlamaConfig(**{**SMOLLM2.to_dict(), "num_hidden_layers": LAYERS})
    model = AutoModelForCausalLM.from_config(config, dtype=fast_dtype(CPU)).eval()
    groups = [
        replace(group, reference=(-50.0, -50.0))
        for group in random_groups(PAIRS, *SHAPES["short prompts"])
    ]
    settings = Training(batch_size=PAIRS, learning_rate=1e-9)
    engine = TransformersEngine(Loaded(model=model, tokenizer=load(resolve("toy").path).tokenizer))
    requests = [
        Request(prompt_id="prompt", prompt_token_ids=groups[0].prompt, seeds=tuple(range(ROWS)))
    ]
    return {
        "training": lambda: fit(model, groups, Loss.of("sigmoid_norm"), settings, seed=0),
        "sampling": lambda: list(engine.generate(requests, Sampling(n=ROWS, max_tokens=TOKENS))),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--spin",
        nargs="+",
        default=[thread_defaults({})[SPIN]],
        help="counts to compare with what OpenMP does by itself",
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work()
    else:
        main(arguments.spin, arguments.runs)

"""The vllm engine against `LLM.generate` called directly, and against the transformers engine; what
a weight swap and a round cost.

    DAPFLOW_VLLM_PYTHON=.venv-vllm/bin/python python -m tests.benchmarks.speed.vllm [--rounds 20]      (ten minutes; `make test-vllm` makes the environment)
Same prompts of mixed lengths, same seeds, fp32 or what the machine is fast in; the three take
turns, medians of the turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import load, load_own, resolve, save
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.probe import save_probe
from dapflow.tasks.prompts.sources import SHIPPED
from dapflow.tasks.sampling.engines.base import Completion, Engine, Request, Sampling
from dapflow.tasks.sampling.engines.transformers import TransformersEngine
from dapflow.tasks.sampling.engines.vllm import VLLM, close, options_of, vllm_engine
from dapflow.tasks.sampling.engines.vllm_holder import PYTHON
from dapflow.tasks.training.fit import fit
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Training

SAMPLING = Sampling(n=4, max_tokens=48)
RAW = """
import json, os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from vllm import LLM, SamplingParams
told = json.loads(sys.stdin.readline())
llm = LLM(model=told["model"], enable_prefix_caching=True, disable_log_stats=True, **told["options"])
prompts = [{"prompt_token_ids": one} for one in told["prompts"]]
print("ready", file=answers, flush=True)
for _ in sys.stdin:
    llm.reset_prefix_cache()
    started = time.perf_counter()
    found = llm.generate(prompts, SamplingParams(n=told["n"], temperature=1.0, max_tokens=told["max_tokens"], logprobs=0, seed=1), use_tqdm=False)
    seconds = time.perf_counter() - started
    print(sum(len(o.token_ids) for one in found for o in one.outputs) / seconds, file=answers, flush=True)
"""


class Raw:
    """`LLM.generate` in a process of its own, on request."""

    def __init__(self, model: Path, requests: Sequence[Request]) -> None:
        self._log = (Path(tempfile.mkdtemp()) / "raw.log").open("w+")
        command = [os.environ.get(PYTHON, sys.executable), "-c", RAW]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        prompts, options = (
            [list(request.prompt_token_ids) for request in requests],
            options_of(model, VLLM()),
        )
        told = {
            "model": str(model),
            "prompts": prompts,
            "n": SAMPLING.n,
            "max_tokens": SAMPLING.max_tokens,
            "options": options,
        }
        assert self._ask(json.dumps(told)) == "ready"

    def rate(self) -> float:
        """Tokens a second."""
        return float(self._ask("go"))

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def requests_of(model: Path, count: int) -> list[Request]:
    """The shipped prompts, every third of them made longer."""
    tokenizer = load(model).tokenizer
    lines = (SHIPPED / "prompts.jsonl").read_text("utf-8").splitlines()[:count]
    texts = [
        json.loads(line)["prompt"] * (6 if place % 3 == 0 else 1)
        for place, line in enumerate(lines)
    ]
    return [
        Request(
            prompt_id=str(place),
            prompt=text,
            prompt_token_ids=tuple(render(tokenizer, text)),
            seeds=tuple(range(SAMPLING.n)),
        )
        for place, text in enumerate(texts)
    ]


def rate(engine: Engine, requests: Sequence[Request]) -> float:
    """Tokens a second."""
    started = time.perf_counter()
    return sum(len(one.token_ids) for one in engine.generate(requests, SAMPLING)) / (
        time.perf_counter() - started
    )


def speeds(model: Path, requests: Sequence[Request], turns: int) -> None:
    """The three in turns."""
    said = list[str]()
    engine, own, raw = (
        vllm_engine(model, VLLM(), said.append),
        TransformersEngine(load(model)),
        Raw(model, requests),
    )
    print(said[-1])
    players: dict[str, Callable[[], float]] = {
        "raw LLM.generate": raw.rate,
        "vllm engine": lambda: _without_prefixes(engine, requests),
        "transformers engine": lambda: rate(own, requests),
    }
    for play in players.values():
        play()  # the first one warms up
    found = [{name: play() for name, play in players.items()} for _ in range(turns)]
    raw.end()
    print(
        f"{len(requests)} prompts of {min(map(_length, requests))} to {max(map(_length, requests))} tokens, {SAMPLING.n} answers each"
    )
    for name in players:
        print(f"  {name:<20} {statistics.median(one[name] for one in found):.0f} tok/s")
    for name in ("raw LLM.generate", "transformers engine"):
        ratio = statistics.median(one["vllm engine"] / one[name] for one in found)
        print(f"  vllm engine / {name} {ratio:.2f}", flush=True)


def _without_prefixes(engine: Any, requests: Sequence[Request]) -> float:
    engine.holder.call("forget")
    return rate(engine, requests)


def _length(request: Request) -> int:
    return len(request.prompt_token_ids)


def rounds(model: Path, count: int, requests: Sequence[Request]) -> None:
    """Sample, take one step, swap; again and again in the same two processes."""
    few, short = requests[:4], SAMPLING.model_copy(update={"n": 2, "max_tokens": 16})
    trained, seconds = (
        load_own(model),
        {"sampling": 0.0, "training": 0.0, "saving": 0.0, "swapping": 0.0},
    )
    engine, said = vllm_engine(model, VLLM()), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            times = [time.perf_counter()]
            answers = list(engine.generate([_twice(request) for request in few], short))
            times.append(time.perf_counter())
            training = Training(
                batch_size=len(few),
                learning_rate=1e-6,
                dtype=str(trained.model.dtype).removeprefix("torch."),
            )  # type: ignore[arg-type]
            fit(trained.model, _groups(few, answers), Loss.of("hinge"), training, seed=number)
            times.append(time.perf_counter())
            place = Path(folder) / str(number)
            save(trained, place)
            save_probe(place, trained.model)
            times.append(time.perf_counter())
            engine = vllm_engine(place, VLLM(), said.append)
            times.append(time.perf_counter())
            for name, begin, end in zip(seconds, times, times[1:], strict=False):
                seconds[name] += end - begin
    swaps = [float(one.split(" in ")[-1].split(" s;")[0]) for one in said]
    assert all("new weights in the running engine" in one for one in said)
    print(
        f"{count} rounds: seconds a round "
        + ", ".join(f"{name} {value / count:.2f}" for name, value in seconds.items())
    )
    print(
        f"  of swapping, the weights alone {statistics.median(swaps):.2f} s, the rest is the proof",
        flush=True,
    )


def _twice(request: Request) -> Request:
    return Request(
        prompt_id=request.prompt_id,
        prompt=request.prompt,
        prompt_token_ids=request.prompt_token_ids,
        seeds=(0, 1),
    )


def _groups(requests: Sequence[Request], answers: Sequence[Completion]) -> list[Group]:
    of = {
        request.prompt_id: [
            tuple(one.token_ids) for one in answers if one.prompt_id == request.prompt_id
        ]
        for request in requests
    }
    return [
        Group(prompt=r.prompt_token_ids, answers=tuple(of[r.prompt_id]), row_ids=(r.prompt_id,))
        for r in requests
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    model = resolve("embedded:smollm2-135m", print).path
    requests = requests_of(model, arguments.prompts)
    speeds(model, requests, arguments.turns)
    rounds(model, arguments.rounds, requests)
    close()


if __name__ == "__main__":
    main()

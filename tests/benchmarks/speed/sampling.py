"""The in-process engine against `model.generate`: same prompts, same 64 rows, one process, medians
of alternating runs.

With 32 tokens hardly an answer comes to its end: what is compared is a step. With 160 they end when
they end: `generate` waits for the last of each batch, the engine puts the next one in its place.

Run: python -m tests.benchmarks.speed.sampling [--threads 1] [--model DIRECTORY]   (minutes; one thread where other work shares the cores). The limit is what
the model's matrix products alone would take for these prompts and 64 rows, measured between the
runs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import Loaded, load, resolve
from dapflow.tasks.prompts.sources import SHIPPED
from dapflow.tasks.sampling.engines.base import Request, Sampling
from dapflow.tasks.sampling.engines.packed import PackedLinears
from dapflow.tasks.sampling.engines.transformers import TransformersEngine

ROWS, SAMPLES, RUNS = 64, 8, 3
AT_ONCE = ROWS // SAMPLES  # prompts
SETTINGS = {  # of how many prompts
    "32 tokens": (AT_ONCE, Sampling(n=SAMPLES, max_tokens=32)),
    "32 tokens, top_p 0.95": (AT_ONCE, Sampling(n=SAMPLES, max_tokens=32, top_p=0.95)),
    "to their end, 160 tokens at most": (3 * AT_ONCE, Sampling(n=SAMPLES, max_tokens=160)),
    "to their end, 160 tokens at most, top_p 0.95": (
        3 * AT_ONCE,
        Sampling(n=SAMPLES, max_tokens=160, top_p=0.95),
    ),
}


def main(model: str, threads: int | None, settings: list[str]) -> None:
    """Print one line for each setting."""
    torch.set_num_threads(threads or torch.get_num_threads())
    loaded = load(resolve(model, print).path)
    lines = (SHIPPED / "prompts.jsonl").read_text("utf-8").splitlines()[: 3 * AT_ONCE]
    prompts = [tuple(render(loaded.tokenizer, json.loads(line)["prompt"])) for line in lines]
    print(
        f"{loaded.model.device}, {loaded.model.dtype}, {torch.get_num_threads()} threads, prompts of {sorted(map(len, prompts))} tokens"
    )
    for name in settings:
        count, sampling = SETTINGS[name]
        some = prompts[:count]
        _by_engine(loaded, some[:1], sampling, RUNS)  # both load and allocate
        _by_generate(loaded, some[:1], sampling)
        ours, theirs, limits = list[float](), list[float](), list[float]()
        for run in range(RUNS):
            seconds, tokens = _timed(
                lambda run=run, some=some, sampling=sampling: _by_engine(
                    loaded, some, sampling, run
                )
            )
            ours.append(tokens / seconds)
            limits.append(
                tokens / _least_seconds(loaded, sum(map(len, some)) + tokens - SAMPLES * count)
            )
            seconds, tokens = _timed(
                lambda some=some, sampling=sampling: _by_generate(loaded, some, sampling)
            )
            theirs.append(tokens / seconds)
        ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
        share = statistics.median(own / limit for own, limit in zip(ours, limits, strict=True))
        engine, generate, limit = map(statistics.median, (ours, theirs, limits))
        speeds = (
            f"engine {engine:.0f} tok/s, generate {generate:.0f} tok/s, limit {limit:.0f} tok/s"
        )
        print(
            f"{name}: {speeds}; engine / generate {ratio:.2f}, engine / limit {share:.0%}",
            flush=True,
        )


def _timed(sample: Callable[[], int]) -> tuple[float, int]:
    """Seconds, prompts included, and sampled tokens."""
    begin = time.perf_counter()
    tokens = sample()
    return time.perf_counter() - begin, tokens


def _by_engine(loaded: Loaded, prompts: list[tuple[int, ...]], sampling: Sampling, run: int) -> int:
    seeds = tuple(range(run * SAMPLES, run * SAMPLES + SAMPLES))
    requests = [
        Request(prompt_id=str(number), prompt_token_ids=ids, seeds=seeds)
        for number, ids in enumerate(prompts)
    ]
    return sum(
        len(one.token_ids) for one in TransformersEngine(loaded).generate(requests, sampling)
    )


def _by_generate(loaded: Loaded, prompts: list[tuple[int, ...]], sampling: Sampling) -> int:
    model: Any = loaded.model
    end, tokens = loaded.tokenizer.eos_token_id, 0
    for first in range(0, len(prompts), AT_ONCE):
        some = prompts[first : first + AT_ONCE]
        width = max(map(len, some))
        ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in some])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in some])
        output = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            temperature=1.0,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_tokens,
            num_return_sequences=SAMPLES,
            pad_token_id=end,
        )[:, width:]
        ended_before = (output == end).cumsum(dim=1) - (output == end).long()
        tokens += int((ended_before == 0).sum())
    return tokens


@torch.inference_mode()
def _least_seconds(loaded: Loaded, tokens: int) -> float:
    """What so many tokens take if matrix products of full batches are all there is to do. The last
    token of a row is drawn, not computed.
    """
    layers = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Linear)]
    weights = {layer.in_features: layer.weight for layer in layers}
    inputs = {
        width: torch.randn(ROWS, width, dtype=weight.dtype, device=weight.device)
        for width, weight in weights.items()
    }
    steps = list[float]()
    with PackedLinears(loaded.model, ROWS).used():
        for _ in range(4):
            begin = time.perf_counter()
            for layer in layers:
                layer(inputs[layer.in_features])
            if loaded.model.device.type == "cuda":
                torch.cuda.synchronize()
            steps.append(time.perf_counter() - begin)
    return statistics.median(steps) * tokens / ROWS


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="SETTING"
    )
    main(**vars(parser.parse_args()))

"""The in-process engine against `model.generate`: same prompts, same 64 rows, one process, medians of alternating runs.

Run: python -m tests.benchmarks.sampling [--threads 1] [--model DIRECTORY]   (minutes; one thread where other work shares the cores). The limit is what
the model's matrix products alone would take for these prompts and 64 rows, measured between the runs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import tasks
from tasks.chat import render
from tasks.engines.base import Request, Sampling
from tasks.engines.packed import PackedLinears
from tasks.engines.transformers import TransformersEngine
from tasks.models import Loaded, load, resolve

PROMPTS, SAMPLES, MAX_TOKENS, RUNS = 8, 8, 32, 3
SETTINGS = {"plain": Sampling(n=SAMPLES, max_tokens=MAX_TOKENS), "top_p 0.95": Sampling(n=SAMPLES, max_tokens=MAX_TOKENS, top_p=0.95)}


def main(model: str, threads: int | None) -> None:
    """Print one line for each setting."""
    torch.set_num_threads(threads or torch.get_num_threads())
    loaded = load(resolve(model, print).path)
    lines = (Path(tasks.__file__).parent / "data" / "prompts.jsonl").read_text("utf-8").splitlines()[:PROMPTS]
    prompts = [tuple(render(loaded.tokenizer, json.loads(line)["prompt"])) for line in lines]
    print(f"{loaded.model.device}, {loaded.model.dtype}, {torch.get_num_threads()} threads, prompts of {sorted(map(len, prompts))} tokens")
    for name, sampling in SETTINGS.items():
        _by_engine(loaded, prompts, sampling, RUNS)  # both load and allocate
        _by_generate(loaded, prompts, sampling)
        ours, theirs, limits = list[float](), list[float](), list[float]()
        for run in range(RUNS):
            ours.append(_rate(lambda run=run, sampling=sampling: _by_engine(loaded, prompts, sampling, run)))
            theirs.append(_rate(lambda sampling=sampling: _by_generate(loaded, prompts, sampling)))
            limits.append(_limit(loaded, sum(map(len, prompts))))
        ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
        share = statistics.median(own / limit for own, limit in zip(ours, limits, strict=True))
        engine, generate, limit = map(statistics.median, (ours, theirs, limits))
        speeds = f"engine {engine:.0f} tok/s, generate {generate:.0f} tok/s, limit {limit:.0f} tok/s"
        print(f"{name}: {speeds}; engine / generate {ratio:.2f}, engine / limit {share:.0%}", flush=True)


def _rate(sample: Callable[[], int]) -> float:
    """Sampled tokens a second, prompts included in the time."""
    begin = time.perf_counter()
    tokens = sample()
    return tokens / (time.perf_counter() - begin)


def _by_engine(loaded: Loaded, prompts: list[tuple[int, ...]], sampling: Sampling, run: int) -> int:
    seeds = tuple(range(run * SAMPLES, run * SAMPLES + SAMPLES))
    requests = [Request(prompt_id=str(number), prompt_token_ids=ids, seeds=seeds) for number, ids in enumerate(prompts)]
    return sum(len(one.token_ids) for one in TransformersEngine(loaded).generate(requests, sampling))


def _by_generate(loaded: Loaded, prompts: list[tuple[int, ...]], sampling: Sampling) -> int:
    model: Any = loaded.model
    end = loaded.tokenizer.eos_token_id
    width = max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output = model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=True,
        temperature=1.0,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=MAX_TOKENS,
        num_return_sequences=SAMPLES,
        pad_token_id=end,
    )[:, width:]
    ended_before = (output == end).cumsum(dim=1) - (output == end).long()
    return int((ended_before == 0).sum())


@torch.inference_mode()
def _limit(loaded: Loaded, prompt_tokens: int) -> float:
    """Tokens a second if matrix products were all there is to do: of the prompts' tokens, and of a full batch at each step after the first."""
    layers = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Linear)]
    rows = PROMPTS * SAMPLES
    weights = {layer.in_features: layer.weight for layer in layers}
    inputs = {width: torch.randn(rows, width, dtype=weight.dtype, device=weight.device) for width, weight in weights.items()}
    steps = list[float]()
    with PackedLinears(loaded.model, rows).used():
        for _ in range(4):
            begin = time.perf_counter()
            for layer in layers:
                layer(inputs[layer.in_features])
            if loaded.model.device.type == "cuda":
                torch.cuda.synchronize()
            steps.append(time.perf_counter() - begin)
    return rows * MAX_TOKENS / (statistics.median(steps) * (MAX_TOKENS - 1 + prompt_tokens / rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--threads", type=int)
    main(**vars(parser.parse_args()))

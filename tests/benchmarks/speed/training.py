"""Speed and memory of DPO on SmolLM2-135M's shape: python -m tests.benchmarks.speed.training
[--pairs 16] [--model embedded:smollm2-135m]

Random tokens, and random weights unless a model is named. Prints, for short and long prompts: pairs
per second, the share of the machine's own matrix product rate that the necessary operations make
up, peak memory, and the seconds of each phase.
"""

import argparse
import random
import resource
import time
from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from dapflow.tasks.models.dtypes import fast_dtype
from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.attention import shared_prefix
from dapflow.tasks.models.packed.batches import Group, pack
from dapflow.tasks.models.packed.head import completion_logps
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.training.fit import fit
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.optimizer.optimizer import MasterAdamW
from dapflow.tasks.training.settings import Training

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)
SHAPES = {
    "short prompts": (66, 128),
    "long prompts": (330, 40),
}  # (prompt, each of two answers), in tokens
BATCH = 4
CPU = torch.device("cpu")


def matmul_rate(dtype: torch.dtype, tries: int = 100) -> float:
    """Operations per second of the matrix product that the model's largest layers run, in the best
    of some tries of 10.
    """
    left, weight = torch.randn(1024, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    seconds = list[float]()
    for _ in range(tries):
        start = time.perf_counter()
        for _ in range(10):
            torch.nn.functional.linear(left, weight)
        seconds.append(time.perf_counter() - start)
    return 10 * 2 * 1024 * 576 * 1536 / min(seconds)


def head_weight(model: PreTrainedModel) -> torch.Tensor:
    head = model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    return head.weight


def necessary_operations(model: PreTrainedModel, group: Group) -> float:
    """Operations of one training step on the group: 6 for each weight and token, the output head at
    completion tokens only.
    """
    head = head_weight(model).numel()
    body = sum(p.numel() for p in model.parameters()) - head
    return 6 * (body * group.tokens + head * sum(map(len, group.answers)))


def random_groups(count: int, prompt: int, answer: int) -> list[Group]:
    draw = random.Random(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(SMOLLM2.vocab_size) for _ in range(length))

    return [
        Group(prompt=ids(prompt), answers=(ids(answer), ids(answer)), row_ids=(str(i),))
        for i in range(count)
    ]


def phases(model: PreTrainedModel, groups: list[Group], optimizer: MasterAdamW) -> dict[str, float]:
    """Seconds of each phase of one optimiser step."""
    times = [time.perf_counter()]
    packed = pack(groups)
    with shared_prefix(model):
        body = model.get_decoder()(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            use_cache=False,
            segments=packed.segments,
            masks={},
        )
    times.append(time.perf_counter())
    hidden = body.last_hidden_state[0].index_select(0, packed.source)
    loss = completion_logps(hidden, packed.target, head_weight(model)).logps.sum()
    times.append(time.perf_counter())
    loss.backward()
    times.append(time.perf_counter())
    optimizer.step(1e-9)
    times.append(time.perf_counter())
    names = ("forward", "output head", "backward", "optimiser")
    return {name: end - start for name, start, end in zip(names, times, times[1:], strict=False)}


def measure(model: PreTrainedModel, name: str, pairs: int, rate: float) -> None:
    groups = random_groups(pairs, *SHAPES[name])
    start = time.perf_counter()
    values = list(reference_logps(model, groups))
    reference_s = time.perf_counter() - start
    groups = [replace(group, reference=value) for group, value in zip(groups, values, strict=True)]
    settings = Training(batch_size=BATCH, learning_rate=1e-6)
    logs = fit(model, groups, Loss.of("sigmoid_norm"), settings, seed=0)
    step_s = sorted(BATCH * groups[0].tokens / log.tokens_per_second for log in logs)
    pairs_per_s = len(logs) * BATCH / sum(step_s)
    needed = necessary_operations(model, groups[0])
    optimizer = MasterAdamW(model, settings)
    phases(model, groups[:BATCH], optimizer)  # the first one allocates
    parts = phases(model, groups[:BATCH], optimizer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name}: {pairs} pairs of {SHAPES[name][0]} + 2 x {SHAPES[name][1]} tokens, {BATCH} a step"
    )
    share = needed * BATCH / step_s[0] / rate
    print(
        f"  {pairs_per_s:.3f} pairs/s ({BATCH / step_s[0]:.3f} in the best step, {share:.0%} of the matmul rate)"
    )
    print(
        f"  reference log-probs {pairs / reference_s:.2f} pairs/s; peak memory {peak:.1f} GB so far"
    )
    print(
        "  one step: " + ", ".join(f"{key} {value:.2f} s" for key, value in parts.items()),
        flush=True,
    )


def lists(model: PreTrainedModel, answers: int = 8, count: int = 2) -> None:
    """RRHF: what several answers to one prompt cost, against the same answers as lists of their own
    with the prompt again in each.
    """
    [prompt, length] = SHAPES["long prompts"]
    draw = random.Random(1)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(draw.randrange(SMOLLM2.vocab_size) for _ in range(size))

    groups = [
        Group(
            prompt=ids(prompt),
            answers=tuple(ids(length) for _ in range(answers)),
            row_ids=(str(i),),
        )
        for i in range(count)
    ]
    apart = [
        Group(prompt=g.prompt, answers=(answer,), row_ids=g.row_ids)
        for g in groups
        for answer in g.answers
    ]
    found = {}
    for name, loss, some in (("together", "rrhf", groups), ("apart", "nll", apart)):
        logs = fit(
            model,
            some,
            Loss.of(loss),
            Training(batch_size=len(some), epochs=2, learning_rate=1e-9),
            seed=0,
        )
        tokens = sum(group.tokens for group in some)
        found[name] = tokens, tokens / logs[-1].tokens_per_second
    needed = sum(len(g.prompt) + sum(len(answer) - 1 for answer in g.answers) for g in groups)
    print(f"RRHF: {count} prompts of {prompt} tokens with {answers} answers of {length}")
    print(
        f"  {found['together'][0]:,} tokens computed, {needed:,} needed; with the prompt again for each answer {found['apart'][0]:,}"
    )
    print(f"  a step {found['together'][1]:.2f} s; apart {found['apart'][1]:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--model", help="a model to load instead of random weights")
    arguments = parser.parse_args()
    dtype = fast_dtype(CPU)
    if arguments.model:
        model = load(resolve(arguments.model).path, dtype=dtype).model
    else:
        model = AutoModelForCausalLM.from_config(SMOLLM2, dtype=dtype)
    rate = matmul_rate(dtype)
    print(f"{dtype}, {torch.get_num_threads()} threads, matrix product {rate / 1e9:.0f} GFLOP/s")
    for name in SHAPES:
        measure(model, name, arguments.pairs, rate)
    lists(model)


if __name__ == "__main__":
    main()

"""The tables of deployments/SCALING.md: an iteration of RSO on so many GPUs, simulated over the
plan that `dapflow plan` makes of it.

python -m dapflow.deployments.sizing --help          # every assumption is an option: --decode-share 0.4 --train-share 0.35 ...
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dapflow.deployments.simulate import Machines, Rates, Took, simulate

# Peak figures of one H100 SXM, dense, as NVIDIA's data sheet of the H100 has them
# (nvidia.com/en-us/data-center/h100): published, not measured here.
_PEAK_FLOPS, _BANDWIDTH, _NVLINK = 989e12, 3.35e12, 900e9
# RSO's candidates a prompt; tokens of an answer at most; of a prompt, as tasks/step/work.py takes
# it
_SAMPLES, _ANSWER, _PROMPT = 8, 512, 60


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What nobody has measured here, each to be changed on the command line."""

    weights: float = 8e9
    decode_share: float = 0.6  # of the memory bandwidth, while decoding
    score_share: float = 0.4  # of the peak, forward only
    train_share: float = 0.4  # of the peak, in training
    network: float = 50e9  # bytes/s and GPU between machines (400 Gbit/s)
    cached_bytes: float = (
        131_072.0  # keys and values of a token: 32 layers, 8 heads of 128, two of two bytes each
    )
    rows: int = 256  # that decode together on a GPU
    batch_tokens: int = 1 << 20  # of an optimiser step

    def rates(self) -> Rates:
        """Seconds of one GPU. Decoding reads all weights once a step, and each row's keys and
        values; the rest is limited by arithmetic.
        """
        flops, read = 2 * self.weights, _BANDWIDTH * self.decode_share
        context = (
            _PROMPT + _ANSWER / 4
        )  # the mean of what has been cached, over a decode of half the tokens
        return Rates(
            decode_step=2 * self.weights / read,
            decode_row=max(
                context * self.cached_bytes / read, flops / (_PEAK_FLOPS * self.score_share)
            ),
            scored_token=flops / (_PEAK_FLOPS * self.score_share),
            trained_token=3 * flops / (_PEAK_FLOPS * self.train_share),
            shares=tuple(
                np.minimum(np.random.default_rng(0).exponential(0.6275, 4096), 1.0)
                .clip(1 / _ANSWER)
                .tolist()
            ),  # half, on average
            rows=self.rows,
            rows_per_chunk=None,
            load=60.0,
        )

    def machines(self, gpus: int, sharded: bool) -> Machines:
        """As the code is, one GPU has the reference; `sharded`: if its log-probabilities were cut
        into shards as samples and verdicts are.
        """
        moved = (
            2 * 2 * self.weights / (_NVLINK / 2 if gpus <= 8 else self.network)
        )  # a ring moves the bf16 gradients twice
        batch = max(self.batch_tokens, gpus * 2_048)
        return Machines(
            samplers=gpus,
            trainers=gpus,
            scorers=gpus,
            references=gpus if sharded else 1,
            batch_tokens=batch,
            reduce=moved if gpus > 1 else 0.0,
        )


def plan_of(completions: int) -> list[dict[str, Any]]:
    """The steps of an iteration of RSO with so many completions, measured on 1,000 held-out
    prompts.
    """
    from dapflow.flows.server.environment import prepare

    prepare(None)
    from dapflow.flows.align import chosen
    from dapflow.flows.planning.plan import make_plan

    settings = [
        f"prompts.per_iteration={completions // _SAMPLES}",
        f"sampling.n={_SAMPLES}",
        "prompts.held_out=1000",
    ]
    settings += [f"sampling.max_tokens={_ANSWER}", f"evaluation.sampling.max_tokens={_ANSWER}"]
    return make_plan(chosen("rso", settings, False), 1, None)["steps"]


def in_words(seconds: float) -> str:
    """A duration with two figures."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return (
                f"{seconds / size:.1f} {unit}"
                if seconds < 10 * size
                else f"{seconds / size:,.0f} {unit}"
            )
    return f"{seconds:.0f} s"


def cell(told: Sequence[Took]) -> str:
    """The time of all steps, what takes most of it, and the share of the GPUs' time that is used."""
    total = sum(one.seconds for one in told)
    kinds = {
        kind: sum(one.seconds for one in told if one.kind == kind)
        for kind in ("sample", "score", "train", "call", "other")
    }
    most = max(kinds, key=lambda kind: kinds[kind])
    busy = sum(one.seconds * one.busy for one in told) / total
    return f"{in_words(total)} ({most} {kinds[most] / total:.0%}, busy {busy:.0%})"


def table(
    assumed: Assumed,
    gpus: Sequence[int],
    plans: Mapping[int, Sequence[Mapping[str, Any]]],
    sharded: bool,
) -> None:
    """A row for each number of completions, a column for each number of GPUs."""
    print(
        "| completions | "
        + " | ".join(f"{count:,} GPU{'s' if count > 1 else ''}" for count in gpus)
        + " |"
    )
    print("|---" * (len(gpus) + 1) + "|")
    for count, steps in plans.items():
        cells = [
            cell(simulate(steps, assumed.rates(), assumed.machines(one, sharded))) for one in gpus
        ]
        print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind, default in (
        (field, type(value), value) for field, value in vars(Assumed()).items()
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=default, help=f"default {default:g}"
        )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 1000])
    parser.add_argument(
        "--completions", type=int, nargs="+", default=[10**power for power in range(4, 10)]
    )
    given = vars(parser.parse_args())
    gpus, completions = given.pop("gpus"), given.pop("completions")
    assumed, plans = Assumed(**given), {count: plan_of(count) for count in completions}
    rates = assumed.rates()
    print(
        f"{assumed.weights / 1e9:g} G weights: "
        f"{assumed.rows / (rates.decode_step + assumed.rows * rates.decode_row):,.0f} tokens/s "
        "sampled on a"
        f" GPU with {assumed.rows} rows, {1 / rates.scored_token:,.0f} scored, "
        f"{1 / rates.trained_token:,.0f} trained\n"
    )
    print("As the code is: reference log-probabilities on one GPU\n")
    table(assumed, gpus, plans, sharded=False)
    print("\nIf they were cut into shards too\n")
    table(assumed, gpus, plans, sharded=True)


if __name__ == "__main__":
    main()

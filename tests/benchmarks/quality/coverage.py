"""How often the 95 % intervals of win rates hold the true rate, in worlds where it is known: 93 to
97 of 100 cases is what they promise.

python -m tests.benchmarks.quality.coverage [--trials 1000]                        raw, by the number of prompts: minutes; no data needed
python -m tests.benchmarks.quality.coverage seeds|length-controlled [--trials N]   several seeds that differ; the length-controlled rate
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from dapflow.tasks.evaluation.winrate.comparisons import Comparison, Comparisons
from dapflow.tasks.evaluation.winrate.rates import win_rates
from dapflow.tasks.statistics import Floats, bootstrap_share, grid_share

PROMPTS = (5, 10, 20, 30, 50, 100, 300, 805)
RATES = (0.5, 0.65, 0.85)
Draw = Callable[[np.random.Generator, int], Floats]


def judges(rate: float) -> dict[str, Draw]:
    """What is judged of each prompt: of several orders and seeds the mean, where every prompt has a
    rate of its own.
    """
    tied = min(0.3, 1.6 * (1 - rate))

    def own(times: int) -> Draw:
        return lambda rng, n: (
            rng.random((n, times)) < rng.beta(2 * rate, 2 * (1 - rate), (n, 1))
        ).mean(axis=1)

    return {
        "wins and losses": lambda rng, n: (rng.random(n) < rate).astype(float),
        f"{tied:.0%} ties": lambda rng, n: rng.choice(
            [1.0, 0.5, 0.0], n, p=[rate - tied / 2, tied, 1 - rate - tied / 2]
        ),
        "two orders": own(2),
        "three seeds": own(3),
        "three seeds, two orders": own(6),
        "probabilities": lambda rng, n: rng.beta(rate, 1 - rate, n),
        "probabilities, all near 0 or 1": lambda rng, n: (
            np.where(rng.random(n) < rate, 0.999, 0.001) + (rate - 0.5) / 500
        ),
    }


def raw(trials: int) -> None:
    """A row for each kind of judge and true rate, a column for each number of prompts."""
    print(f"{'% of intervals, by prompts':<32}" + "".join(f"{n:>7}" for n in PROMPTS))
    for rate in RATES:
        for name, draw in judges(rate).items():
            print(f"{f'{rate:.0%}, {name}':<32}", end="", flush=True)
            for prompts in PROMPTS:
                rng = np.random.default_rng(prompts)
                intervals = [
                    bootstrap_share(draw(rng, prompts).tolist(), seed=n, count=500)[1:]
                    for n in range(trials)
                ]
                print(
                    f"{100 * np.mean([low <= rate <= high for low, high in intervals]):7.1f}",
                    end="",
                    flush=True,
                )
            print()


def over_seeds(trials: int) -> None:
    """The same of wins and losses at 50 % under several seeds, whose own rates differ by so much
    (standard deviation, points).
    """
    print(f"{'% of intervals, by prompts':<32}" + "".join(f"{n:>7}" for n in PROMPTS))
    for seeds in (2, 3, 5):
        for apart in (0.0, 0.03, 0.08):
            print(f"{f'{seeds} seeds, {100 * apart:.0f} points apart':<32}", end="", flush=True)
            for prompts in PROMPTS:
                rng, held = np.random.default_rng(prompts), list[bool]()
                for _ in range(trials):
                    chances = rng.beta(3, 3, (prompts, 1)) + rng.normal(0, apart, (1, seeds))
                    _, low, high = grid_share(
                        (rng.random((prompts, seeds)) < chances).astype(float)
                    )
                    held.append(low <= 0.5 <= high)
                print(f"{100 * np.mean(held):7.1f}", end="", flush=True)
            print()


def length_controlled(trials: int) -> None:
    """The first of several systems, which a judge with a love of length compared with the baseline."""
    for systems, prompts, quality in (
        (1, 100, 0.0),
        (1, 400, -1.5),
        (3, 200, 0.0),
        (3, 200, -1.5),
        (8, 200, -1.5),
    ):
        rng, held = np.random.default_rng(0), list[bool]()
        for _ in range(trials if systems == 1 else trials // 3):
            rows, truth = _world(rng, systems, prompts, quality)
            one = win_rates(Comparisons(rows=rows), samples=400).systems["0"]
            held.append(
                (one.length_controlled_low or 0) <= 100 * truth <= (one.length_controlled_high or 0)
            )
        print(
            f"{systems} systems, {prompts} prompts, quality {quality}: {np.mean(held):.1%} of {len(held)}",
            flush=True,
        )


def _world(
    rng: np.random.Generator, systems: int, prompts: int, quality: float
) -> tuple[list[Comparison], float]:
    """The rows, the first system of this quality; and its true rate at equal lengths."""
    hardness = rng.normal(0, 1, prompts) * (systems > 1)
    rows = list[Comparison]()
    for system in range(systems):
        theta = quality + (rng.normal(0, 0.5) if system else 0.0)
        delta = np.round(rng.normal(400, 800, prompts)).astype(int)
        chance = expit(theta + rng.normal(1.5, 0.3) * np.tanh(delta / 800) + hardness)
        for n, won in enumerate(rng.random(prompts) < chance):
            rows.append(
                Comparison(
                    system=str(system),
                    instruction=str(n),
                    answer=n,
                    delta=int(delta[n]),
                    preference=float(won),
                )
            )
    return rows, float(
        expit(quality + np.random.default_rng(1).normal(0, 1, 100_000) * (systems > 1)).mean()
    )


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="raw",
        choices=(
            tables := {"raw": raw, "seeds": over_seeds, "length-controlled": length_controlled}
        ),
    )
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    tables[arguments.what](arguments.trials)


if __name__ == "__main__":
    main()

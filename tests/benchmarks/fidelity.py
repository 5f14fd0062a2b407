"""Do they align? Every method on a toy policy in a world whose gold reward is known (world.py), its figures and the papers' orderings.

    python -m tests.benchmarks.fidelity [--seeds 3] [--iterations 4] [--long 10] [--methods rso,dpo,...]
Each seed has a lake of its own: the toy policy answers the shipped prompts, the noisy annotator labels pairs of its answers, and from half of
those a reward model learns (the proxy) that judges the methods that have one. The others learn from the same pairs (offline), or ask the
annotator about their own (online). All run by `align`, with one learning rate. Intervals are of 95 %, over seeds (Student's t).
What does not come out as the papers say is printed as `no`.
"""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from scipy.stats import t as student

from flows.environment import prepare

prepare(None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of a toy model a second thread only waits

from prefect import flow  # noqa: E402

from flows.align import align  # noqa: E402
from storage import DatasetRef, Lake, ModelRef  # noqa: E402
from tasks.acceptance import Acceptance  # noqa: E402
from tasks.engines.base import Sampling  # noqa: E402
from tasks.engines.sampler import Sampler  # noqa: E402
from tasks.judges.base import Question, scores_of  # noqa: E402
from tasks.judges.programs import pinned  # noqa: E402
from tasks.judges.reward_model import RewardModelJudge  # noqa: E402
from tasks.judging import judge  # noqa: E402
from tasks.models import resolve  # noqa: E402
from tasks.policy import register_model  # noqa: E402
from tasks.pool import accept_answers  # noqa: E402
from tasks.preferences import PREFERENCES_FILE, load_preferences  # noqa: E402
from tasks.prompts import PROMPTS_FILE, Split, load_prompts  # noqa: E402
from tasks.sampling import sample  # noqa: E402
from tasks.sources import find_source  # noqa: E402
from tasks.step import use_lake  # noqa: E402
from tasks.training.reward import train_reward_model  # noqa: E402
from tasks.training.settings import RewardModel  # noqa: E402
from tests.benchmarks.world import gold, noisy  # noqa: E402

GOLD, NOISY = "tests.benchmarks.world:gold", "tests.benchmarks.world:noisy"
TOKENS = 16
COMMON = ("prompts.held_out=48", "prompts.per_iteration=96", "training.learning_rate=0.0003", "training.batch_size=8")
COMMON += ("sampling.temperature=1.0", "sampling.top_k=0", "sampling.system=null", f"evaluation.judge={GOLD}")
COMMON += (f"evaluation.sampling={{n: 4, max_tokens: {TOKENS}}}", "evaluation.probes=48")
COMMON += (f"sampling.max_tokens={TOKENS}", "evaluation.exact.source=", "evaluation.baselines=[]")
ROUNDS = ("rounds.count=24", "rounds.prompts=8")
BY_PROXY = ("judge=reward-model",)  # for those whom nobody judges: so that the proxy is there
JUDGED_BY = dict.fromkeys(("rso", "rso-hinge", "sft-sample-rank", "rejection-sampling", "rest", "iterative-dpo", "pairwise-cringe"), ())
JUDGED_BY |= dict.fromkeys(("slic-hf-sample-rank", "rrhf", "click"), ()) | dict.fromkeys(("rlhf", "rloo"), ROUNDS)
JUDGED_BY |= dict.fromkeys(("dpo", "ipo", "slic-hf", "spin"), BY_PROXY)
JUDGED_BY |= dict.fromkeys(("oaif", "oaif-ipo", "oaif-slic", "rlaif"), (*ROUNDS, f"judge={NOISY}"))
JUDGED_BY |= {"rlaif-direct": (*ROUNDS, f"judge={GOLD}")}
DRAWS, POOL = (1, 2, 4, 8, 16, 32), 256


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a policy is. kl: to the initial policy, nats an answer; gold, proxy: mean rewards of its held-out answers."""

    kl: float
    gold: float
    proxy: float


Curve = list[Point]
"""The initial policy, and the one after each iteration."""


@flow
def answers_of(split: Split, n: int, seed: int) -> tuple[DatasetRef, DatasetRef]:
    """Prompts, and n answers of the initial policy to each."""
    source = find_source("shipped", PROMPTS_FILE)
    policy, prompts = register_model("toy", resolve("toy").digest), load_prompts(source.name, source.digest, split, 48)
    return prompts, sample(policy, prompts, Sampling(n=n, max_tokens=TOKENS), seed, Sampler())


def preferences(lake: Lake, file: Path, seed: int) -> float:
    """Write pairs of answers of the initial policy as the annotator prefers them; how often it is right."""
    prompts, answers = answers_of("train", 8, seed)
    texts = {row["id"]: row["prompt"] for row in lake.rows_of(prompts)}
    rows = [(texts[row["prompt_id"]], row["text"]) for row in lake.rows_of(answers)]
    right, lines = list[float](), list[str]()
    for (prompt, one), (_, other) in zip(rows[::2], rows[1::2], strict=True):
        if one.strip() and other.strip() and one != other:
            better, worse = (one, other) if noisy(prompt, one, other) else (other, one)
            right.append(float(gold(prompt, better) > gold(prompt, worse)))
            lines.append(json.dumps({"prompt": prompt, "chosen": better, "rejected": worse}))
    file.write_text("\n".join(lines))
    return fmean(right)


@flow
def proxy(pairs: Path, seed: int) -> ModelRef:
    """The reward model that the recipes train on these pairs."""
    source, policy = find_source(str(pairs), PREFERENCES_FILE), register_model("toy", resolve("toy").digest)
    learned, test = load_preferences(source.name, source.digest, "reward"), load_preferences(source.name, source.digest, "test")
    return train_reward_model(policy, learned, test, RewardModel(layers=1), seed)


def curve(lake: Path, recipe: str, model: ModelRef, seed: int, iterations: int, settings: Sequence[str]) -> Curve:
    """A method, measured after each iteration."""
    told = align(recipe, iterations, (f"seed={seed}", *COMMON, *settings), True, str(lake))["iterations"]
    with Lake(lake) as opened:
        initial = opened.rows("SELECT version FROM models WHERE name = 'toy'")[0]["version"]
        measured = [{row["name"]: row["value"] for row in one["metrics"]} for one in told]
        start = Point(kl=0.0, gold=measured[0]["judge_reward_before"], proxy=proxy_of(opened, model, initial))
        after = [
            Point(kl=figures["kl_to_initial"], gold=figures["judge_reward_after"], proxy=proxy_of(opened, model, one["policy"]))
            for figures, one in zip(measured, told, strict=True)
        ]
    return [start, *after]


def proxy_of(lake: Lake, model: ModelRef, policy: str) -> float:
    """The mean score that the proxy gives to a policy's held-out answers, whoever judged its training."""
    query = (
        "SELECT c.id, c.text, p.prompt FROM completions c JOIN prompts p ON p.id = c.prompt_id WHERE c.policy = ? AND p.split = 'held_out'"
    )
    asked = [
        Question(completion_id=row["id"], prompt=row["prompt"], completion=row["text"], answer=None) for row in lake.rows(query, [policy])
    ]
    return fmean(one.score for one in scores_of(RewardModelJudge(lake, model), asked) if one.score is not None)


def gold_at(points: Curve, kl: float) -> float:
    """Gold reward on the way to a KL, between its neighbours linear in its square root (arXiv 2210.10760 draws it so)."""
    known = sorted(points, key=lambda point: point.kl)
    return float(np.interp(kl**0.5, [point.kl**0.5 for point in known], [point.gold for point in known]))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half its interval."""
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return fmean(values), half


def told(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:+.2f} ± {half:.2f}"


def verdict(values: Sequence[float]) -> str:
    """Whether a difference is what is claimed, above zero: by its interval, or by its sign alone."""
    mean, half = interval(values)
    return "yes" if mean > half else "no" if mean < -half else f"cannot tell (sign {'right' if mean > 0 else 'wrong'})"


def show_methods(curves: Mapping[str, list[Curve]]) -> None:
    """A row of each method: what it gained at its end, by gold and by proxy, and how far it went."""
    print(f"{'method':<20} {'gold gained':<15} {'proxy gained':<15} {'KL':<15} gold raised")
    for name, found in curves.items():
        gains = [one[-1].gold - one[0].gold for one in found]
        proxies, kls = [one[-1].proxy - one[0].proxy for one in found], [one[-1].kl for one in found]
        print(f"{name:<20} {told(gains):<15} {told(proxies):<15} {told(kls):<15} {verdict(gains)}", flush=True)


def show_orderings(curves: Mapping[str, list[Curve]]) -> None:
    """The first method's gold reward less the second's, at the largest KL that both have come to."""
    claims = [("rso", "sft-sample-rank"), ("sft-sample-rank", "dpo"), ("oaif", "dpo"), ("oaif-ipo", "ipo"), ("oaif-slic", "slic-hf")]
    print(f"\n{'at matched KL':<28} {'KL':<7} {'gold, the first less the second':<34} as the papers say")
    for first, second in ((one, other) for one, other in claims if one in curves and other in curves):
        pairs = list(zip(curves[first], curves[second], strict=True))
        kls = [min(max(point.kl for point in side) for side in pair) for pair in pairs]
        gaps = [gold_at(one, kl) - gold_at(other, kl) for (one, other), kl in zip(pairs, kls, strict=True)]
        print(f"{first + ' - ' + second:<28} {fmean(kls):<7.2f} {told(gaps):<34} {verdict(gaps)}", flush=True)


def show_overoptimisation(curves: Mapping[str, list[Curve]]) -> None:
    """Of long runs: what is lost of the best gold reward on the way, while the proxy goes on."""
    print(f"\n{'long runs':<12} {'best gold gained':<18} {'lost of it at the end':<24} {'proxy since then':<20} over-optimised")
    for name, found in curves.items():
        best = [max(range(len(one)), key=lambda place, one=one: one[place].gold) for one in found]
        gained = [one[place].gold - one[0].gold for one, place in zip(found, best, strict=True)]
        lost = [one[place].gold - one[-1].gold for one, place in zip(found, best, strict=True)]
        proxies = [one[-1].proxy - one[place].proxy for one, place in zip(found, best, strict=True)]
        print(f"{name:<12} {told(gained):<18} {told(lost):<24} {told(proxies):<20} {verdict(lost)}", flush=True)


@flow
def best_of(n: int, seed: int) -> tuple[DatasetRef, DatasetRef, DatasetRef]:
    """n answers of the initial policy to each held-out prompt, their gold rewards, and the best of them, by the steps that the recipes use."""
    prompts, answers = answers_of.fn("held_out", n, seed)
    verdicts = judge(prompts, answers, pinned(GOLD))
    return answers, verdicts, accept_answers([prompts], [answers], [verdicts], Acceptance(rule="best"), seed)


def show_best_of_n(lake: Lake) -> None:
    """The best of N against E[max] of N draws from a pool of answers: sum_i r_(i) ((i / M)^N - ((i - 1) / M)^N), unfinished ones last."""
    print(f"\n{'best of N':<10} {'KL = log N - (N - 1) / N':<26} {'gold':<16} {'closed form':<12} as it says")
    with use_lake(lake):
        answers, verdicts, _ = best_of(POOL, 1)
        done = {row["id"]: row["finish_reason"] == "stop" for row in lake.rows_of(answers)}
        pools: dict[str, list[float]] = {}
        for row in lake.rows_of(verdicts):
            reward = row["score"] if done[row["completion_id"]] and row["score"] is not None else -np.inf
            pools.setdefault(row["prompt_id"], []).append(reward)
        for n in DRAWS:
            _, _, accepted = best_of(n, 2)
            found = [row["reward"] for row in lake.rows_of(accepted) if row["accepted"]]
            places = np.arange(POOL + 1) / POOL
            weights = places[1:] ** n - places[:-1] ** n
            sums = [(weights * np.where(np.isinf(pool), 0, pool), weights * ~np.isinf(pool)) for pool in map(np.sort, pools.values())]
            expected = sum(one.sum() for one, _ in sums) / sum(other.sum() for _, other in sums)
            half = 1.96 * stdev(found) / len(found) ** 0.5
            agrees = "yes" if abs(fmean(found) - expected) < half else "no"
            kl = np.log(n) - (n - 1) / n
            print(f"{n:<10} {kl:<26.3f} {f'{fmean(found):.2f} ± {half:.2f}':<16} {expected:<12.2f} {agrees}", flush=True)


def main(seeds: int, iterations: int, long: int, methods: Sequence[str], folder: Path) -> None:
    """Print the figures as they come."""
    curves: dict[str, list[Curve]] = {name: [] for name in methods}
    longer: dict[str, list[Curve]] = {name: [] for name in ("dpo", "oaif") if name in methods and long}
    for seed in range(seeds):
        lake, pairs = folder / f"lake-{seed}", folder / f"preferences-{seed}.jsonl"
        with Lake(lake) as opened, use_lake(opened):
            right = preferences(opened, pairs, seed)
            model = proxy(pairs, seed)
            [row] = opened.rows("SELECT value FROM metrics WHERE version = ? AND name = 'held_out_accuracy'", [model.version])
        count = len(pairs.read_text().splitlines())
        print(
            f"seed {seed}: the annotator is right on {right:.0%} of {count} pairs, the proxy agrees with it on {row['value']:.0%}",
            flush=True,
        )
        for name in methods:
            given = (f"preferences.source={pairs}", *JUDGED_BY[name])
            points = curve(lake, name, model, seed, max(iterations, long if name in longer else 0), given)
            curves[name].append(points[: iterations + 1])
            if name in longer:
                longer[name].append(points)
            print(f"  {name:<20} " + " ".join(f"{point.gold:.2f}" for point in points), flush=True)
    print()
    show_methods(curves)
    show_orderings(curves)
    show_overoptimisation(longer)
    with Lake(folder / "lake-0") as opened:
        show_best_of_n(opened)
    print("\nself-rewarding is not here: the toy policy cannot judge, and the run of a policy that can says whether its judge improves.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--long", type=int, default=10)
    parser.add_argument("--methods", default=",".join(JUDGED_BY))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory() as made:
        main(arguments.seeds, arguments.iterations, arguments.long, arguments.methods.split(","), Path(made))

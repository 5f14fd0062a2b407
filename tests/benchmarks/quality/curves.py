"""What tests.benchmarks.quality.fidelity prints of its methods: gold reward against KL, the papers'
orderings, over-optimisation. Plain values in, lines out.

Intervals are of 95 %, over seeds (Student's t).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a policy is. kl: to the initial policy, nats an answer; gold, proxy: mean rewards of
    its held-out answers.
    """

    kl: float
    gold: float
    proxy: float


Curve = Sequence[Point]
"""The initial policy, and the one after each iteration."""
# RSO, arXiv 2309.06657; OAIF, arXiv 2402.04792. The two of each pair have the same loss.
CLAIMS = (("rso", "sft-sample-rank"), ("sft-sample-rank", "rso-direct"), ("rso", "rso-direct"))
CLAIMS += (("oaif", "dpo"), ("oaif-ipo", "offline-ipo"), ("oaif-slic", "offline-slic"))


def gold_at(points: Curve, kl: float) -> float:
    """Gold reward on the way to a KL, between its neighbours linear in its square root (arXiv
    2210.10760 draws it so).
    """
    known = sorted(points, key=lambda point: point.kl)
    return float(
        np.interp(kl**0.5, [point.kl**0.5 for point in known], [point.gold for point in known])
    )


def matched_kl(one: Curve, other: Curve) -> float | None:
    """The largest KL that both have come to; None where one of them was measured nowhere on the way
    to it but at its start.
    """
    nearest = max(min(point.kl for point in curve[1:]) for curve in (one, other))
    largest = min(max(point.kl for point in curve) for curve in (one, other))
    return largest if nearest <= largest else None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half its interval."""
    half = (
        float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
        if len(values) > 1
        else float("nan")
    )
    return fmean(values), half


def told(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:+.2f} ± {half:.2f}"


def verdict(values: Sequence[float]) -> str:
    """Whether a difference is what is claimed, above zero: by its interval, or by its sign alone."""
    mean, half = interval(values)
    return (
        "yes"
        if mean > half
        else "no"
        if mean < -half
        else f"cannot tell (sign {'right' if mean > 0 else 'wrong'})"
    )


def show_methods(curves: Mapping[str, Sequence[Curve]]) -> None:
    """A row of each method: what it gained after its first iteration and after its last, by gold
    and by proxy, and how far it went.
    """
    for name, place in (("the first iteration", 1), ("the last iteration", -1)):
        print(f"\nafter {name:<25} {'gold gained':<15} {'proxy gained':<15} {'KL':<15} gold raised")
        for method, found in curves.items():
            gains, proxies = (
                [one[place].gold - one[0].gold for one in found],
                [one[place].proxy - one[0].proxy for one in found],
            )
            kls = told([one[place].kl for one in found]).removeprefix("+")
            print(
                f"  {method:<29} {told(gains):<15} {told(proxies):<15} {kls:<15} {verdict(gains)}",
                flush=True,
            )


def show_orderings(curves: Mapping[str, Sequence[Curve]]) -> None:
    """The first method's gold reward less the second's, at the largest KL that both have come to,
    and at the end of both.
    """
    print(
        f"\n{'first - second':<26} {'matched KL':<12} {'gold at it':<16} {'as the papers say':<26} gold at the end, whatever the KL"
    )
    for first, second in (
        (one, other) for one, other in CLAIMS if one in curves and other in curves
    ):
        pairs = list(zip(curves[first], curves[second], strict=True))
        ends = told([one[-1].gold - other[-1].gold for one, other in pairs])
        kls = [kl for one, other in pairs if (kl := matched_kl(one, other)) is not None]
        if len(kls) < len(pairs):
            print(
                f"{first + ' - ' + second:<26} {'none':<12} {'-':<16} {'the KLs do not overlap':<26} {ends}",
                flush=True,
            )
            continue
        gaps = [
            gold_at(one, kl) - gold_at(other, kl)
            for (one, other), kl in zip(pairs, kls, strict=True)
        ]
        print(
            f"{first + ' - ' + second:<26} {fmean(kls):<12.2f} {told(gaps):<16} {verdict(gaps):<26} {ends}",
            flush=True,
        )


def show_overoptimisation(curves: Mapping[str, Sequence[Curve]]) -> None:
    """Of long runs: what is lost of the best gold reward on the way, while the proxy goes on.

    Where a seed's curve is best is read from the other seeds' curves: its own highest point is
    partly luck, from which every curve falls.
    """
    print(
        f"\n{'long runs':<12} {'best after':<12} {'gold gained by then':<20} {'lost at the end':<16} {'proxy since':<16} {'KL':<15} over-optimised"
    )
    for name, found in curves.items():
        best = [_peak([other for other in found if other is not one] or [one]) for one in found]
        gained = [one[place].gold - one[0].gold for one, place in zip(found, best, strict=True)]
        lost = [one[place].gold - one[-1].gold for one, place in zip(found, best, strict=True)]
        proxies = [one[-1].proxy - one[place].proxy for one, place in zip(found, best, strict=True)]
        over = verdict(proxies) if verdict(lost) == "yes" else verdict(lost)
        places, kls = (
            ", ".join(map(str, best)),
            told([one[-1].kl for one in found]).removeprefix("+"),
        )
        print(
            f"{name:<12} {places:<12} {told(gained):<20} {told(lost):<16} {told(proxies):<16} {kls:<15} {over}",
            flush=True,
        )


def _peak(curves: Sequence[Curve]) -> int:
    """The iteration after which the mean gold reward is highest."""
    means = [fmean(point.gold for point in points) for points in zip(*curves, strict=True)]
    return means.index(max(means))

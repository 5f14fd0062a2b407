"""Intervals: how sure a share or a mean is, and how many prompts it takes to be surer. Test: pytest
tests/tasks/test_statistics.py
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
_Z = 1.959963984540054  # two-sided 95 %
_CELLS = 2**22  # of one block of resamples: 32 MB
_FEW = 8  # prompts; of fewer, samples of samples cannot tell how far out the truth may be
# prompts; of fewer, a share's interval is Wilson's: percentiles of so few are coarse and too wide
_ENOUGH = 30


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    return _wilson(successes / trials, trials, _Z)


def _wilson(share: float, trials: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = (
        z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def resamples(prompts: int, count: int, seed: int) -> Iterator[Floats]:
    """How often each prompt is drawn in each of `count` bootstrap samples, in blocks of (some of
    them, prompts).
    """
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // prompts)
    for first in range(0, count, block):
        drawn = rng.integers(0, prompts, size=(min(block, count - first), prompts))
        yield np.stack([np.bincount(one, minlength=prompts) for one in drawn]).astype(np.float64)


def percentile_interval(
    estimates: ArrayLike, prompts: int, influence: ArrayLike = (0.0,), cell: float = 0.0
) -> tuple[float, float]:
    """The 95 % interval from the estimates of the bootstrap samples, put right for few prompts, for
    skew and for wins that are whole.

    Plain percentiles are too narrow by sqrt((n - 1) / n) and by what Student's t is wider than the
    normal: they are taken further out (the expanded percentile interval: Hesterberg, American
    Statistician 69, 2015). Of a skewed mean one end is too far in: BCa moves both (Efron and
    Tibshirani, An Introduction to the Bootstrap, chapter 14), by the skew of the prompts'
    `influence` on the estimate. `cell`: how far apart the estimates can be; each is spread over its
    cell, or the ends would jump from one to the next. Of two or three prompts no sample lies
    outside what they have: fewer than eight have Student's t where it is wider.
    """
    assert prompts > 1, "one prompt says nothing about others"
    values = np.sort(np.round(np.asarray(estimates, dtype=np.float64), 9))
    _, first, times = np.unique(values, return_index=True, return_counts=True)
    values += cell * (
        (np.arange(len(values)) - np.repeat(first, times) + 0.5) / np.repeat(times, times) - 0.5
    )
    moved = np.asarray(influence, dtype=np.float64)
    squares = float((moved**2).sum())
    skew = float((moved**3).sum()) / 6 / squares**1.5 if squares else 0.0
    out = math.sqrt(prompts / (prompts - 1)) * float(stdtrit(prompts - 1, 0.975))
    places = [NormalDist().cdf(skew + (skew + z) / (1 - skew * (skew + z))) for z in (-out, out)]
    low, high = np.quantile(values, places)
    if prompts < _FEW:
        low, high = (
            min(low, values.mean() - out * values.std()),
            max(high, values.mean() + out * values.std()),
        )
    return float(low), float(high)


def cell_of(values: Floats) -> float:
    """How far apart sums of these values are at least, where they are wins, losses and ties; else
    0.
    """
    there = set(np.unique(values).tolist())
    return (
        1.0 if there == {0.0, 1.0} else 0.5 if len(there) > 1 and there <= {0.0, 0.5, 1.0} else 0.0
    )


def bootstrap_mean(
    values: Sequence[float], seed: int, count: int = 2000
) -> tuple[float, float, float]:
    """The mean and its 95 % interval, resampling the values (one per prompt) with replacement.

    Of one value the interval is without bounds. Raises ValueError without values: a mean of nothing
    is not a number, and must not become one.
    """
    if not values:
        raise ValueError("there is nothing to average: no prompt was judged")
    if len(values) == 1:
        return float(values[0]), -math.inf, math.inf
    data = np.asarray(values, dtype=np.float64)
    mean, means = _means(data, seed, count)
    return mean, *percentile_interval(means, len(data), data - mean, cell_of(data) / len(data))


def _means(data: Floats, seed: int, count: int) -> tuple[float, Floats]:
    """The mean, and those of `count` bootstrap samples."""
    return float(data.mean()), np.concatenate(
        [block @ data for block in resamples(len(data), count, seed)]
    ) / len(data)


def bootstrap_share(
    values: Sequence[float], seed: int, count: int = 2000
) -> tuple[float, float, float]:
    """The same for values between 0 and 1, such as wins (`share_interval`)."""
    if len(values) < 2:
        return bootstrap_mean(values, seed, count)[0], 0.0, 1.0
    data = np.asarray(values, dtype=np.float64)
    mean, means = _means(data, seed, count)
    return mean, *share_interval(mean, means, len(data), data - mean, cell_of(data) / len(data))


def bootstrap_difference(
    values: Sequence[float], seed: int, count: int = 2000
) -> tuple[float, float, float]:
    """The same for differences of such values, from -1 to 1."""
    return difference_by(lambda halves: bootstrap_share(halves.tolist(), seed, count), values)


def difference_by(
    share: Callable[[Floats], tuple[float, float, float]], values: ArrayLike
) -> tuple[float, float, float]:
    """What `share` finds of values between 0 and 1, of differences of such values: half of what 1
    and a difference come to is one as well.
    """
    mean, low, high = (2 * one - 1 for one in share((1 + np.asarray(values, dtype=np.float64)) / 2))
    return mean, low, high


def share_interval(
    mean: float,
    estimates: ArrayLike,
    prompts: int,
    influence: ArrayLike = (0.0,),
    cell: float = 0.0,
) -> tuple[float, float]:
    """The 95 % interval of a mean of values from 0 to 1 on two prompts or more, from its bootstrap
    samples, as `percentile_interval` has it.

    Of fewer than 30 prompts it is `effective_share`. tests/benchmarks/quality/coverage.py has how
    often both hold the truth.
    """
    if prompts < _ENOUGH:
        return effective_share(
            mean,
            float(np.var(np.asarray(estimates))) * prompts / (prompts - 1),
            prompts - 1,
            prompts,
        )
    return _with_unseen(mean, *percentile_interval(estimates, prompts, influence, cell), prompts)


def effective_share(
    mean: float, variance: float, degrees: float, prompts: int
) -> tuple[float, float]:
    """Wilson's interval of as many wins and losses as would make the mean vary like this (the
    effective sample size), with Student's t of so many degrees of freedom: Franco, Little, Louis
    and Slud, Journal of Survey Statistics and Methodology 7, 2019."""
    spread = mean * (1 - mean)
    sure = spread * variance <= 1e-12
    low, high = (
        (mean, mean) if sure else _wilson(mean, spread / variance, float(stdtrit(degrees, 0.975)))
    )
    return _with_unseen(mean, low, high, prompts)


def _with_unseen(mean: float, low: float, high: float, prompts: int) -> tuple[float, float]:
    """The interval, with room for kinds of prompts that none of these was of. So many prompts would
    have shown one, with 97.5 % probability, if it were more than a share 1 - 0.025^(1 / prompts);
    on that share everything may be lost, or won. Where all were won (or all lost) this is the
    interval of Clopper and Pearson (Biometrika 26, 1934)."""
    seen = 0.025 ** (1 / prompts)
    return max(0.0, min(low, mean * seen)), min(1.0, max(high, 1 - (1 - mean) * seen))


def grid_share(values: ArrayLike) -> tuple[float, float, float]:
    """The mean and its 95 % interval of values from 0 to 1 of (prompts, seeds), two or more of
    each: other prompts and another run's seeds would differ from these.

    Both effects are random: the variance of the mean is that of prompts, of seeds and of what is
    left, by their mean squares, with Student's t of as many degrees of freedom as Satterthwaite
    gives it (Searle, Casella and McCulloch, Variance Components, chapters 4 and 5). A cell that was
    not judged is NaN, and stands at what its prompt and its seed have on average. Raises ValueError
    when all are NaN.
    """
    data = np.asarray(values, dtype=np.float64)
    prompts, seeds = data.shape
    if np.isnan(data).all():
        raise ValueError("there is nothing to average: no prompt was judged")
    mean, rows, columns = (np.nanmean(data, axis=axis, keepdims=True) for axis in (None, 1, 0))
    data = np.where(np.isnan(data), rows + columns - mean, data)
    middle, rows, columns = (data.mean(axis=axis, keepdims=True) for axis in (None, 1, 0))
    of_prompts = seeds * float(((rows - middle) ** 2).sum()) / (prompts - 1)
    of_seeds = prompts * float(((columns - middle) ** 2).sum()) / (seeds - 1)
    rest = float(((data - rows - columns + middle) ** 2).sum()) / ((prompts - 1) * (seeds - 1))
    parts = [(of_prompts, prompts - 1), (of_seeds, seeds - 1), (-rest, (prompts - 1) * (seeds - 1))]
    parts = parts if of_seeds > rest else parts[:1]  # seeds that differ no more than chance has it
    total, squares = (
        sum(part for part, _ in parts),
        sum(part**2 / degrees for part, degrees in parts),
    )
    value = float(mean.item())
    return value, *effective_share(
        value, total / data.size, total**2 / squares if squares else 1.0, prompts
    )


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], seed: int
) -> tuple[float, float, float]:
    """By how much `b` is above `a` on the prompts that both have, with its 95 % interval: what
    prompts have in common drops out. Both are shares, from 0 to 1."""
    return bootstrap_difference(
        [b[prompt] - a[prompt] for prompt in sorted(a.keys() & b.keys())], seed
    )


def half_width(prompts: int, spread: float = 0.5) -> float:
    """Half the 95 % interval of a mean over so many prompts; spread: standard deviation (0.5: as
    many wins as losses, no ties).
    """
    return _Z * spread / math.sqrt(prompts)


def prompts_for(half: float, spread: float = 0.5) -> int:
    """How many prompts make half the 95 % interval so wide."""
    return math.ceil((_Z * spread / half) ** 2)


def prompts_to_tell(seen: float, spread: float) -> int:
    """How many prompts leave one half outside the 95 % interval of a share that is `seen` away from
    it (more than 0).
    """
    return max(prompts_for(seen, spread), math.ceil(math.log(0.025) / math.log(0.5 / (0.5 + seen))))


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Judgements of which a judge is about equally sure. confidence: the mean probability of the
    answer it prefers; right: how often that is the better one, with Wilson's 95 % interval; n: how
    many they are."""

    confidence: float
    right: float
    low: float
    high: float
    n: int


def reliability(probabilities: Sequence[float], bins: int = 10) -> list[Confidence]:
    """How often a judge is right by how sure it is, in bins of equal width from one half to 1 that
    hold something.

    probabilities: of the answer that is truly better. A judge whose probabilities are honest is
    right as often as it is sure.
    """
    data = np.asarray(probabilities, dtype=np.float64)
    confidence, right = np.maximum(data, 1 - data), data > 0.5
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    found = list[Confidence]()
    for one in sorted(set(place.tolist())):
        held = place == one
        n, hits = int(held.sum()), int(right[held].sum())
        low, high = wilson(hits, n)
        found.append(
            Confidence(
                confidence=float(confidence[held].mean()), right=hits / n, low=low, high=high, n=n
            )
        )
    return found


def calibration_error(probabilities: Sequence[float], bins: int = 10) -> float:
    """How far, on average, a judge's confidence in the answer it prefers lies from how often it is
    right (ECE, arXiv 1706.04599, eq. 3).

    probabilities: of the answer that is truly better. Raises ValueError without any.
    """
    if not probabilities:
        raise ValueError("there is nothing to calibrate: no pair was judged")
    return sum(
        abs(one.confidence - one.right) * one.n for one in reliability(probabilities, bins)
    ) / len(probabilities)

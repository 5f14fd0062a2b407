"""How long an iteration takes on so many devices: an event simulation of samplers, judges and
trainer over the steps of `dapflow plan`.

    rates = calibrate(plan["steps"], seconds by version, lengths by version)        # of a run that has been
    simulate(make_plan(recipe, 1, None)["steps"], rates, Machines(samplers=8))      # -> what each step takes in another
Needs simpy (pip install 'dapflow[simulate]'). Test: pytest tests/deployments/test_simulate.py;
against real runs: python -m tests.benchmarks.speed.scaling; tables for clusters: python -m
dapflow.deployments.sizing
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simpy
from scipy.optimize import nnls

# answers of a device that are followed one by one; the rest pass at the rate that these have come
# to
_FOLLOWED = 2_048
_DRAWN_STEPS = 1_000  # optimiser steps that are drawn one by one, likewise
_CALLS_AT_ONCE = 50_000  # events of judge calls at most: then each stands for several


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds that one device, or one call, takes. Decoding a token for each of k rows takes
    decode_step + k * decode_row.
    """

    decode_step: float
    decode_row: float
    scored_token: float  # forward only, of many tokens at once
    trained_token: float  # forward, backward and optimiser, less the reference
    shares: tuple[float, ...] = (
        1.0,
    )  # of the tokens that it may have, what answers have taken: lengths are drawn from these
    rows: int = 64  # that decode together
    rows_per_chunk: int | None = (
        128  # after which a device starts with an empty batch; None: when all its answers are done
    )
    load: float = 0.0  # of a model, at the start of a step that needs one
    starts: Mapping[str, float] = field(
        default_factory=dict
    )  # what a step takes whatever its size, by its function, in place of `load`
    scored_tokens: Mapping[str, float] = field(
        default_factory=dict
    )  # in place of `scored_token`, by the step's function
    call: float = 1.0  # latency of a judge's call, mean
    concurrency: int = 64  # calls under way at once
    written_row: float = 1 / 210_000  # by one writer, whoever made them


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Devices by what they do. Reference log-probabilities are not cut into shards, nor is what
    scores without judging (the features of a reward model that is trained, the KL): whatever there
    is, one does them."""

    samplers: int = 1
    scorers: int = 1
    references: int = 1
    trainers: int = 1
    batch_tokens: int = 16_384  # of an optimiser step
    reduce: float = 0.0  # seconds in which the gradients of a step are summed over the trainers


@dataclass(frozen=True, kw_only=True)
class Took:
    """A step of the simulation. busy: the share of all devices' time that it has used."""

    name: str
    kind: str
    seconds: float
    busy: float


Process = Generator[simpy.Event, Any, None]


def simulate(
    steps: Sequence[Mapping[str, Any]], rates: Rates, machines: Machines, seed: int = 0
) -> list[Took]:
    """The steps one after the other, as the flow runs them: each reads what the one before has
    completed. Cached steps take nothing.
    """
    random, devices, told = (
        np.random.default_rng(seed),
        max(machines.samplers, machines.scorers, machines.trainers),
        list[Took](),
    )
    for step in steps:
        env = simpy.Environment()
        work = _Work(env, rates, machines, random)
        kind = _kind(step)
        if kind != "cached":
            env.run(env.process(work.run(kind, step)))
        seconds = float(env.now)
        told.append(
            Took(
                name=step["name"],
                kind=kind,
                seconds=seconds,
                busy=work.used / (devices * seconds) if seconds else 0.0,
            )
        )
    return told


def decode_seconds(lengths: Sequence[int], rates: Rates) -> float:
    """What a device takes for answers of these lengths: a row that ends leaves the batch, and the
    next one takes its place.
    """
    waiting, ends, clock, seconds = deque(lengths), list[int](), 0, 0.0
    while waiting or ends:
        while waiting and len(ends) < rates.rows:
            heapq.heappush(ends, clock + waiting.popleft())
        end = heapq.heappop(ends)
        seconds += (end - clock) * (rates.decode_step + rates.decode_row * (len(ends) + 1))
        clock = end
    return seconds


def calibrate(
    steps: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
    lengths: Mapping[str, Sequence[int]],
    rates: Rates,
) -> Rates:
    """Rates at which the simulation takes as long as a real run on one device.

    steps: the plan of that run; seconds: what each took, by `KIND@VERSION`; lengths: in tokens, of
    the answers of each that sampled; rates: what cannot be seen there. Lines are fitted by least
    squares, with nothing below zero: seconds of sampling over decoding steps and rows, those of
    other steps over their tokens, function by function; of a step that the run had once, all is
    laid to its tokens.
    """
    ran = [step for step in steps if step["version"] in seconds and not step["cached"]]
    sampled = [step for step in ran if _kind(step) == "sample"]
    shares = [
        length / (step["tokens"]["sampled"] / step["rows"])
        for step in sampled
        for length in lengths[step["version"]]
    ]
    once, row = (
        replace(rates, decode_step=1.0, decode_row=0.0),
        replace(rates, decode_step=0.0, decode_row=1.0),
    )
    counted = [
        [1.0, *(decode_seconds(lengths[step["version"]], unit) for unit in (once, row))]
        for step in sampled
    ]
    start, decode_step, decode_row = _fitted(
        counted, [seconds[step["version"]] for step in sampled]
    )
    starts = {step["step"]: start for step in sampled}
    scored = dict[str, float]()
    for name in dict.fromkeys(
        step["step"] for step in ran if _kind(step) in ("score", "train", "other")
    ):
        found = [
            (sum(one["tokens"].values()) * float(np.mean(shares)), seconds[one["version"]])
            for one in ran
            if one["step"] == name
        ]
        if not any(tokens for tokens, _ in found):
            starts[name] = float(np.mean([took for _, took in found]))
        else:
            several = len({tokens for tokens, _ in found}) > 1
            starts[name], scored[name] = _fitted(
                [[float(several), tokens] for tokens, _ in found], [took for _, took in found]
            )
    trained = scored.pop(next((step["step"] for step in ran if _kind(step) == "train"), ""), 0.0)
    mean = float(np.mean(list(scored.values()))) if scored else 0.0
    return replace(
        rates,
        decode_step=decode_step,
        decode_row=decode_row,
        scored_token=mean,
        trained_token=max(trained - mean, 0.0),
        shares=tuple(shares),
        starts=starts,
        scored_tokens=scored,
    )


def _fitted(columns: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    return nnls(np.array(columns), np.array(values))[0].tolist()


class _Work:
    """The processes of one step. used: seconds of devices."""

    def __init__(
        self, env: simpy.Environment, rates: Rates, machines: Machines, random: np.random.Generator
    ) -> None:
        self.env, self.rates, self.machines, self.random = env, rates, machines, random
        self.lake = simpy.Resource(env)
        self.used = 0.0

    def run(self, kind: str, step: Mapping[str, Any]) -> Process:
        """One step, then its rows into the lake."""
        tokens = sum(step["tokens"].values())
        works: dict[str, Callable[[], list[simpy.Process]]] = {
            "sample": lambda: self._samplers(step["rows"], tokens),
            "score": lambda: self._scorers(step, tokens * self._share),
            "train": lambda: [self.env.process(self._train(tokens * self._share))],
            "call": lambda: self._callers(step["calls"]),
            "other": list,
        }
        yield self.env.timeout(
            self.rates.starts.get(
                step["step"], 0.0 if kind in ("call", "other") else self.rates.load
            )
        )
        yield self.env.all_of(works[kind]())
        if kind != "sample":
            yield from self._write(step["rows"])

    @property
    def _share(self) -> float:
        return float(np.mean(self.rates.shares))

    def _write(self, rows: float) -> Process:
        with self.lake.request() as turn:
            yield turn
            yield self.env.timeout(rows * self.rates.written_row)

    def _busy(self, seconds: float) -> Process:
        self.used += seconds
        yield self.env.timeout(seconds)

    def _scorers(self, step: Mapping[str, Any], tokens: float) -> list[simpy.Process]:
        """Shared out evenly, where a step's rows are."""
        scorers = self.machines.scorers if step["shards"] else 1
        rate = self.rates.scored_tokens.get(step["step"], self.rates.scored_token)
        each = tokens * rate / scorers
        return [self.env.process(self._busy(each)) for _ in range(scorers)]

    def _samplers(self, rows: int, tokens: int) -> list[simpy.Process]:
        """A process for each device, with its share of the rows."""
        each, most = divmod(rows, self.machines.samplers), tokens / max(rows, 1)
        return [
            self.env.process(self._sampler(each[0] + (place < each[1]), most))
            for place in range(self.machines.samplers)
            if rows > place
        ]

    def _sampler(self, rows: int, most: float) -> Process:
        began = self.env.now
        size = self.rates.rows_per_chunk or rows
        followed = min(rows, max(size, _FOLLOWED // size * size))
        for first in range(0, followed, size):
            count = min(size, rows - first)
            yield from self._busy(self._chunk(count, most))
            yield from self._write(count)
        yield from self._busy((self.env.now - began) * (rows / followed - 1))

    def _chunk(self, rows: int, most: float) -> float:
        """A chunk of answers; of a long one the first are followed, and the rest pass with a full
        batch.
        """
        followed = min(rows, max(_FOLLOWED, 2 * self.rates.rows))
        drawn = np.maximum(
            np.rint(self.random.choice(self.rates.shares, followed) * most), 1
        ).astype(int)
        full = float(drawn.mean()) * (
            self.rates.decode_step / self.rates.rows + self.rates.decode_row
        )
        return decode_seconds(drawn.tolist(), self.rates) + (rows - followed) * full

    def _train(self, tokens: float) -> Process:
        """The reference's log-probabilities, then optimiser steps that wait for whoever has the
        longest answers.
        """
        yield from self._busy(tokens * self.rates.scored_token / self.machines.references)
        count, share = (
            math.ceil(tokens / self.machines.batch_tokens),
            self.machines.batch_tokens / self.machines.trainers,
        )
        spread = float(np.std(self.rates.shares) / self._share) * math.sqrt(
            share
        )  # as if an answer had sqrt(share) tokens
        drawn = min(count, _DRAWN_STEPS)
        longest = (
            self.random.normal(share, spread, (drawn, self.machines.trainers)).max(axis=1).mean()
        )
        whole = count * share * self.rates.trained_token * self.machines.trainers
        self.used += min(whole, tokens * self.rates.trained_token)
        yield self.env.timeout(
            tokens
            / self.machines.batch_tokens
            * (longest * self.rates.trained_token + self.machines.reduce)
        )

    def _callers(self, calls: int) -> list[simpy.Process]:
        """As many callers as calls may be under way, who take the next call as soon as one has been
        answered.
        """
        left = simpy.Container(self.env, init=calls, capacity=max(calls, 1))
        at_once = math.ceil(calls / _CALLS_AT_ONCE)
        return [
            self.env.process(self._caller(left, at_once))
            for _ in range(min(self.rates.concurrency, calls))
        ]

    def _caller(self, left: simpy.Container, at_once: int) -> Process:
        while left.level:
            count = min(at_once, left.level)
            yield left.get(count)
            yield self.env.timeout(float(self.random.gamma(count, self.rates.call)))


def _kind(step: Mapping[str, Any]) -> str:
    if step["cached"]:
        return "cached"
    kinds = {"sampled": "sample", "scored": "score", "trained": "train"}
    return "call" if step["calls"] else next((kinds[key] for key in step["tokens"]), "other")

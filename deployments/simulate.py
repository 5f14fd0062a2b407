"""How long an iteration takes on so many devices: an event simulation of samplers, judges and trainer over the steps of `dapflow plan`.

    rates = calibrate(plan["steps"], seconds by version, lengths by version)        # of a run that has been
    simulate(make_plan(recipe, 1, None)["steps"], rates, Machines(samplers=8))      # -> what each step takes in another
Needs simpy (pip install 'dapflow[simulate]'). Test: pytest tests/deployments/test_simulate.py; against real runs: python -m
tests.benchmarks.scaling; tables for clusters: python -m deployments.sizing
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

_FOLLOWED = 2_048  # answers of a device that are followed one by one; the rest pass at the rate that these have come to
_DRAWN_STEPS = 1_000  # optimiser steps that are drawn one by one, likewise
_CALLS_AT_ONCE = 50_000  # events of judge calls at most: then each stands for several


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds that one device, or one call, takes. Decoding a token for each of k rows takes decode_step + k * decode_row."""

    decode_step: float
    decode_row: float
    scored_token: float  # forward only, of many tokens at once
    trained_token: float  # forward, backward and optimiser, less the reference
    shares: tuple[float, ...] = (1.0,)  # of the tokens that it may have, what answers have taken: lengths are drawn from these
    rows: int = 64  # that decode together
    rows_per_chunk: int | None = 128  # after which a device starts with an empty batch; None: when all its answers are done
    load: float = 0.0  # of a model, at the start of a step
    call: float = 1.0  # latency of a judge's call, mean
    concurrency: int = 64  # calls under way at once
    written_row: float = 1 / 210_000  # by one writer, whoever made them
    fixed: Mapping[str, float] = field(default_factory=dict)  # of steps without a model, by the name of their function


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Devices by what they do. Scoring and reference log-probabilities are not cut into shards: whatever there is, one does them."""

    samplers: int = 1
    scorers: int = 1
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


def simulate(steps: Sequence[Mapping[str, Any]], rates: Rates, machines: Machines, seed: int = 0) -> list[Took]:
    """The steps one after the other, as the flow runs them: each reads what the one before has completed. Cached steps take nothing."""
    random, devices, told = np.random.default_rng(seed), max(machines.samplers, machines.scorers, machines.trainers), list[Took]()
    for step in steps:
        env = simpy.Environment()
        work = _Work(env, rates, machines, random)
        kind = _kind(step)
        if kind != "cached":
            env.run(env.process(work.run(kind, step)))
        seconds = float(env.now)
        told.append(Took(name=step["name"], kind=kind, seconds=seconds, busy=work.used / (devices * seconds) if seconds else 0.0))
    return told


def decode_seconds(lengths: Sequence[int], rates: Rates) -> float:
    """What a device takes for answers of these lengths: a row that ends leaves the batch, and the next one takes its place."""
    waiting, ends, clock, seconds = deque(lengths), list[int](), 0, 0.0
    while waiting or ends:
        while waiting and len(ends) < rates.rows:
            heapq.heappush(ends, clock + waiting.popleft())
        end = heapq.heappop(ends)
        seconds += (end - clock) * (rates.decode_step + rates.decode_row * (len(ends) + 1))
        clock = end
    return seconds


def calibrate(
    steps: Sequence[Mapping[str, Any]], seconds: Mapping[str, float], lengths: Mapping[str, Sequence[int]], rates: Rates
) -> Rates:
    """Rates at which the simulation takes as long as a real run on one device.

    steps: the plan of that run; seconds: what each took, by `KIND@VERSION`; lengths: in tokens, of the answers of each that sampled;
    rates: what cannot be seen there. Decoding is fitted by least squares over the steps that sampled, none below zero.
    """
    ran = [step for step in steps if step["version"] in seconds and not step["cached"]]
    of = {kind: [step for step in ran if _kind(step) == kind] for kind in ("sample", "score", "train", "other")}
    shares = [length / (step["tokens"]["sampled"] / step["rows"]) for step in of["sample"] for length in lengths[step["version"]]]
    share = float(np.mean(shares))
    once, row = replace(rates, decode_step=1.0, decode_row=0.0), replace(rates, decode_step=0.0, decode_row=1.0)
    counted = [[decode_seconds(lengths[step["version"]], unit) for unit in (once, row)] for step in of["sample"]]
    (decode_step, decode_row), _ = nnls(np.array(counted), np.array([seconds[step["version"]] for step in of["sample"]]))

    def per_token(kind: str) -> float:
        tokens = sum(count for step in of[kind] for count in step["tokens"].values())
        return sum(seconds[step["version"]] for step in of[kind]) / (tokens * share) if tokens else 0.0

    scored = per_token("score")
    others = {step["step"]: [seconds[one["version"]] for one in of["other"] if one["step"] == step["step"]] for step in of["other"]}
    return replace(
        rates,
        decode_step=decode_step,
        decode_row=decode_row,
        scored_token=scored,
        trained_token=max(per_token("train") - scored, 0.0),
        shares=tuple(shares),
        fixed={name: float(np.mean(values)) for name, values in others.items()},
    )


class _Work:
    """The processes of one step. used: seconds of devices."""

    def __init__(self, env: simpy.Environment, rates: Rates, machines: Machines, random: np.random.Generator) -> None:
        self.env, self.rates, self.machines, self.random = env, rates, machines, random
        self.lake = simpy.Resource(env)
        self.used = 0.0

    def run(self, kind: str, step: Mapping[str, Any]) -> Process:
        """One step, then its rows into the lake."""
        tokens = sum(step["tokens"].values())
        works: dict[str, Callable[[], list[simpy.Process]]] = {
            "sample": lambda: self._samplers(step["rows"], tokens),
            "score": lambda: self._each(self.machines.scorers, tokens * self._share * self.rates.scored_token),
            "train": lambda: [self.env.process(self._train(tokens * self._share))],
            "call": lambda: self._callers(step["calls"]),
            "other": lambda: self._each(1, self.rates.fixed.get(step["step"], 0.0), device=False),
        }
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

    def _busy(self, seconds: float, device: bool = True) -> Process:
        self.used += seconds if device else 0.0
        yield self.env.timeout(seconds)

    def _each(self, count: int, seconds: float, device: bool = True) -> list[simpy.Process]:
        """Work that is shared out evenly."""
        load = self.rates.load if device else 0.0
        return [self.env.process(self._busy(load + seconds / count, device)) for _ in range(count)]

    def _samplers(self, rows: int, tokens: int) -> list[simpy.Process]:
        """A process for each device, with its share of the rows."""
        each, most = divmod(rows, self.machines.samplers), tokens / max(rows, 1)
        return [
            self.env.process(self._sampler(each[0] + (place < each[1]), most)) for place in range(self.machines.samplers) if rows > place
        ]

    def _sampler(self, rows: int, most: float) -> Process:
        yield from self._busy(self.rates.load)
        size = self.rates.rows_per_chunk or rows
        followed = min(rows, max(size, _FOLLOWED // size * size))
        for first in range(0, followed, size):
            count = min(size, rows - first)
            yield from self._busy(self._chunk(count, most))
            yield from self._write(count)
        yield from self._busy((self.env.now - self.rates.load) * (rows / followed - 1))

    def _chunk(self, rows: int, most: float) -> float:
        """A chunk of answers; of a long one the first are followed, and the rest pass with a full batch."""
        followed = min(rows, max(_FOLLOWED, 2 * self.rates.rows))
        drawn = np.maximum(np.rint(self.random.choice(self.rates.shares, followed) * most), 1).astype(int)
        full = float(drawn.mean()) * (self.rates.decode_step / self.rates.rows + self.rates.decode_row)
        return decode_seconds(drawn.tolist(), self.rates) + (rows - followed) * full

    def _train(self, tokens: float) -> Process:
        """The reference's log-probabilities on one device, then optimiser steps that wait for whoever has the longest answers."""
        yield from self._busy(self.rates.load + tokens * self.rates.scored_token)
        count, share = math.ceil(tokens / self.machines.batch_tokens), self.machines.batch_tokens / self.machines.trainers
        spread = float(np.std(self.rates.shares) / self._share) * math.sqrt(share)  # as if an answer had sqrt(share) tokens
        drawn = min(count, _DRAWN_STEPS)
        longest = self.random.normal(share, spread, (drawn, self.machines.trainers)).max(axis=1).mean()
        whole = count * share * self.rates.trained_token * self.machines.trainers
        self.used += min(whole, tokens * self.rates.trained_token)
        yield self.env.timeout(tokens / self.machines.batch_tokens * (longest * self.rates.trained_token + self.machines.reduce))

    def _callers(self, calls: int) -> list[simpy.Process]:
        """As many callers as calls may be under way, who take the next call as soon as one has been answered."""
        left = simpy.Container(self.env, init=calls, capacity=max(calls, 1))
        at_once = math.ceil(calls / _CALLS_AT_ONCE)
        return [self.env.process(self._caller(left, at_once)) for _ in range(min(self.rates.concurrency, calls))]

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

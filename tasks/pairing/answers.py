"""Answers that are worth imitating, out of the samples of several iterations or sources: best of N,
those above a threshold, ranked lists.

    accept_answers(prompts, completions, verdicts, acceptance)  ->  acceptances (one row per completion, accepted or not, and why not)
Test: pytest tests/tasks/pairing/test_answers.py
"""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from dapflow.storage import DatasetRef
from dapflow.tasks.pairing.acceptance import Acceptance, rso_accept
from dapflow.tasks.pairing.work import accepting
from dapflow.tasks.seeds import generator
from dapflow.tasks.step import Out, step

Row = Mapping[str, Any]
Rule = Callable[[Sequence[Row], Acceptance, float, Random], set[int]]
"""(a prompt's candidates, acceptance, least reward, random stream) -> the places of those accepted.
"""


def best(candidates: Sequence[Row], acceptance: Acceptance, least: float, rng: Random) -> set[int]:
    """The finished one with the highest reward; of equals one at random (Llama 2, arXiv 2307.09288,
    section 3.2.3).
    """
    finished = [n for n, row in enumerate(candidates) if row["finished"]]
    highest = max((candidates[n]["reward"] for n in finished), default=0.0)
    equal = [n for n in finished if candidates[n]["reward"] == highest]
    return {rng.choice(equal)} if equal else set()


def above(candidates: Sequence[Row], acceptance: Acceptance, least: float, rng: Random) -> set[int]:
    """The finished ones whose reward is above the threshold (ReST, arXiv 2308.08998, section 3)."""
    return {n for n, row in enumerate(candidates) if row["finished"] and row["reward"] > least}


def sampled(
    candidates: Sequence[Row], acceptance: Acceptance, least: float, rng: Random
) -> set[int]:
    """Statistical rejection sampling (RSO, Algorithm 1)."""
    rewards = [row["reward"] for row in candidates]
    return {one.index for one in rso_accept(rewards, acceptance.keep, acceptance.beta, rng)}


def every(candidates: Sequence[Row], acceptance: Acceptance, least: float, rng: Random) -> set[int]:
    """All that ended: if those that were cut off took part below the others and never above them,
    a judge without preference would teach to end early.
    """
    return {n for n, row in enumerate(candidates) if row["finished"]}


RULES: dict[str, Rule] = {"best": best, "threshold": above, "rso": sampled, "all": every}


@step(
    "acceptances",
    title="accept the {acceptance.rule} of {completions} as answers",
    expects=lambda completions, **_: sum(ref.rows for ref in completions),
    activity="accepting",
    work=lambda prompts, completions, acceptance, **_: accepting(
        sum(ref.rows for ref in set(prompts)), completions, acceptance.most
    ),
)
def accept_answers(
    out: Out,
    prompts: list[DatasetRef],
    completions: list[DatasetRef],
    verdicts: list[DatasetRef],
    acceptance: Acceptance,
    seed: int,
) -> None:
    """One acceptance per completion. The same prompt may come several times, with other completions
    each time: they compete.

    prompts, completions, verdicts: of each iteration or source, in one order; the rewards must be
    of one judge.
    """
    digests = {
        row["id"]: row["digest"] for ref in dict.fromkeys(prompts) for row in out.lake.rows_of(ref)
    }
    sampled = {row["id"]: row for ref in completions for row in out.lake.rows_of(ref)}
    rows: list[dict[str, Any]] = []
    for verdict in (row for ref in verdicts for row in out.lake.rows_of(ref)):
        completion = sampled[verdict["completion_id"]]
        rows.append(
            {
                "prompt_id": verdict["prompt_id"],
                "completion_id": completion["id"],
                "reward": verdict["score"],
            }
            | {
                "digest": digests[verdict["prompt_id"]],
                "text": completion["text"],
                "finished": completion["finish_reason"] == "stop",
            }
            | {"note": None if verdict["outcome"] == "scored" else verdict["outcome"]}
        )
    accepted = accept_rows(rows, acceptance, seed)
    keep = ("prompt_id", "completion_id", "reward", "note")
    out.write(
        0,
        [
            {
                "id": out.row_id(n),
                **{key: row[key] for key in keep},
                "accepted": n in accepted,
                "sweep": 0 if n in accepted else None,
            }
            for n, row in enumerate(rows)
        ],
    )


def accept_rows(rows: Sequence[dict[str, Any]], acceptance: Acceptance, seed: int) -> set[int]:
    """The places of the accepted rows; a text that a prompt has twice is noted as a duplicate, what
    `all` leaves out as truncated.

    The threshold is a quantile of all rewards here, so that it means the same for every judge;
    ReST's is on rewards in [0, 1]. Where so many have the highest reward that none is above the
    quantile, those pass; where all have it, none is better than another and none does.
    """
    groups: dict[str, list[int]] = {}
    seen: set[tuple[str, str]] = set()
    for place, row in enumerate(rows):
        if row["note"] is None and (row["digest"], row["text"]) in seen:
            row["note"] = "duplicate"
        if row["note"] is None:
            seen.add((row["digest"], row["text"]))
            groups.setdefault(row["digest"], []).append(place)
    rewards = [rows[place]["reward"] for places in groups.values() for place in places]
    least = float(np.quantile(rewards, acceptance.threshold)) if rewards else 0.0
    if rewards and least == max(rewards) > min(rewards):
        least = math.nextafter(least, -math.inf)
    accepted: set[int] = set()
    scaled = acceptance.in_scores(
        [rows[place]["reward"] for place in places] for places in groups.values()
    )
    for digest, places in groups.items():
        taken = RULES[acceptance.rule](
            [rows[place] for place in places], scaled, least, generator(seed, "accept", digest)
        )
        accepted |= {places[one] for one in taken}
        if acceptance.rule == "all":
            for place in {*places} - accepted:
                rows[place]["note"] = "truncated"
    return accepted

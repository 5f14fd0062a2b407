"""What a round's scores are worth to the policy: an answer that was cut off must not win by it.

    capped(completions, scores)         ->  rewards, by completion
    cut_off_variance(accepted, scores)  ->  how much of what is learned is that
Pure functions. Test: pytest tests/tasks/training/rounds/test_rewards.py
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

Row = Mapping[str, Any]


def capped(completions: Sequence[Row], scores: Mapping[str, float | None]) -> dict[str, float]:
    """The reward of each completion that has a score, by id. What was cut off gets no more than the
    worst finished answer to the same prompt; where none is finished, no more than the mean of the
    round's scores less their standard deviation.
    """
    given = {row["id"]: score for row in completions if (score := scores[row["id"]]) is not None}
    if not given:
        return {}
    low = fmean(given.values()) - pstdev(given.values())
    worst = dict[str, float]()
    for row in completions:
        if row["id"] in given and row["finish_reason"] == "stop":
            worst[row["prompt_id"]] = min(
                given[row["id"]], worst.get(row["prompt_id"], given[row["id"]])
            )
    return {
        row["id"]: given[row["id"]]
        if row["finish_reason"] == "stop"
        else min(given[row["id"]], worst.get(row["prompt_id"], low))
        for row in completions
        if row["id"] in given
    }


def cut_off_variance(accepted: Sequence[Row], scores: Mapping[str, float | None]) -> float:
    """The share of the cap in the variance of a round's advantages, 0 to 1: var(C) / (var(C) +
    var(S)), where advantages are C + S, S those of the scores themselves and C those of what was
    taken from the scores of cut-off answers.

    accepted: rows with prompt_id, completion_id and reward. An advantage is the reward less the
    mean of the other answers' to the prompt; of a prompt's only answer, less the mean of the round.
    """
    prompts = [row["prompt_id"] for row in accepted]
    given = [scores[row["completion_id"]] or 0.0 for row in accepted]
    taken = [row["reward"] - score for row, score in zip(accepted, given, strict=True)]
    of_cap, of_scores = (
        sum(advantage**2 for advantage in _advantages(prompts, part)) for part in (taken, given)
    )
    return of_cap / (of_cap + of_scores) if of_cap else 0.0


def _advantages(prompts: Sequence[str], rewards: Sequence[float]) -> list[float]:
    own: dict[str, list[float]] = defaultdict(list)
    for prompt, reward in zip(prompts, rewards, strict=True):
        own[prompt].append(reward)
    mean = fmean(rewards) if rewards else 0.0
    return [
        reward - (_others(own[prompt], reward) if len(own[prompt]) > 1 else mean)
        for prompt, reward in zip(prompts, rewards, strict=True)
    ]


def _others(rewards: Sequence[float], own: float) -> float:
    return (sum(rewards) - own) / (len(rewards) - 1)


def cut_off_figures(logs: Sequence[Row], steps: int) -> list[dict[str, Any]]:
    """The same of a training, as a metric: the mean over its rounds, of at most so many optimiser
    steps each; none where no round had any.
    """
    shares = {
        log["step"] // steps: log["cut_off_variance"]
        for log in logs
        if log["cut_off_variance"] is not None
    }
    if not shares:
        return []
    unit = "share of the advantages' variance"
    return [{"name": "cut_off_variance", "value": fmean(shares.values()), "unit": unit}]

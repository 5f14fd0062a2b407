"""How many tokens a training computes, at most: for a plan.

Test: pytest tests/flows/planning/test_plan.py
"""

from collections.abc import Sequence
from dataclasses import replace

from dapflow.storage import DatasetRef
from dapflow.tasks.judging.work import By, judging_rounds
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.step import Work, contents_of
from dapflow.tasks.training.settings import Rounds


def learning(data: Sequence[DatasetRef], epochs: int) -> Work:
    """Of so many passes over the rows of the data."""
    return Work(trained=round(epochs * sum(contents_of(ref).tokens for ref in data)))


def fitting_features(labelled: DatasetRef, test: DatasetRef) -> Work:
    """Of a reward model, which reads each answer once."""
    return Work(scored=round(contents_of(labelled).tokens + contents_of(test).tokens))


def rounds_of(by: By, prompts: DatasetRef, sampling: Sampling, rounds: Rounds, models: int) -> Work:
    """Of rounds that sample, judge and train. models: that are trained, the critic among them."""
    asked, contents = rounds.count * min(rounds.prompts, prompts.rows), contents_of(prompts)
    answers = asked * sampling.n
    tokens = answers * (sampling.max_tokens + contents.prompt_tokens)
    return replace(
        judging_rounds(by, asked, sampling.n, sampling.max_tokens),
        sampled=answers * sampling.max_tokens,
        trained=round(tokens * rounds.epochs * models),
    )

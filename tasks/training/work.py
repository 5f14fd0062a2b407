"""How many tokens a training computes, at most: for a plan.

Test: pytest tests/flows/planning/test_plan.py
"""

from collections.abc import Sequence
from dataclasses import replace

from dapflow.storage import DatasetRef
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.spec import JudgeSpec
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.step import Work, contents_of
from dapflow.tasks.training.settings import Rounds


def learning(data: Sequence[DatasetRef], epochs: int) -> Work:
    """Of so many passes over the rows of the data."""
    return Work(trained=round(epochs * sum(contents_of(ref).tokens for ref in data)))


def fitting_features(labelled: DatasetRef, test: DatasetRef) -> Work:
    """Of a reward model, which reads each answer once."""
    return Work(scored=round(contents_of(labelled).tokens + contents_of(test).tokens))


def rounds_of(
    by: JudgeSpec, prompts: DatasetRef, sampling: Sampling, rounds: Rounds, models: int
) -> Work:
    """Of rounds that sample, judge and train. models: that are trained, the critic among them."""
    asked, contents = rounds.count * min(rounds.prompts, prompts.rows), contents_of(prompts)
    answers = asked * sampling.n
    tokens = answers * (sampling.max_tokens + contents.prompt_tokens)
    verdicts = asked * (sampling.n // 2 if by.compares else sampling.n)
    material = Material(
        verdicts=verdicts,
        prompts=asked,
        prompt_tokens=contents.prompt_tokens,
        answer_tokens=sampling.max_tokens,
    )
    return replace(
        by.work(material),
        scored=0,
        shards=False,
        sampled=answers * sampling.max_tokens,
        trained=round(tokens * rounds.epochs * models),
    )

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
from dapflow.tasks.training.settings import Rounds, Training


def learning(data: Sequence[DatasetRef], training: Training) -> Work:
    """Of its passes over the rows of the data, and of its looks at rows that it sets aside."""
    contents = [contents_of(ref) for ref in data]
    tokens, rows = sum(each.tokens for each in contents), sum(each.rows for each in contents)
    aside = min(training.stop.set_aside, rows) if training.sets_aside else 0
    looks = -(-training.steps(rows) // training.stop.every)
    scored = looks * aside * tokens / rows if rows else 0
    return Work(trained=round(training.epochs * tokens), scored=round(scored))


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

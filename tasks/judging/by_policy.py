"""The policy judges completions, with the engine that samples from it. How good a judge it is:
tasks/evaluation/judge_quality.py.

    judge_itself(prompts, completions, policy, ...)           ->  verdicts, one per completion
    compare_itself(prompts, completions, other, policy, ...)  ->  verdicts, one per match
Test: pytest tests/flows/judges/test_self_judge.py
"""

from contextlib import AbstractContextManager
from typing import Any

from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.compare import comparison_chunks, write_comparisons, write_steadiness
from dapflow.tasks.judging.judges.policy import PolicyJudge, policy_judge
from dapflow.tasks.judging.judges.prompted import SelfJudge
from dapflow.tasks.judging.matches import Drawn, matches_expected, own_matches, policy_matches
from dapflow.tasks.judging.score import score_chunks, write_scores
from dapflow.tasks.judging.work import judging_itself
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.step import Out, step
from dapflow.tasks.step.shards import spread


@step(
    "verdicts",
    title="judge {completions.rows} of {completions} by {policy} {asks}",
    expects=lambda completions, **_: completions.rows,
    activity="judging",
    work=lambda completions, asks, **_: judging_itself(asks, completions.rows),
)
def judge_itself(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    policy: ModelRef,
    asks: SelfJudge,
    sampler: Sampler,
    chat_template: str | None,
) -> None:
    """A score for each completion, in its order."""
    who = {"policy": policy, "asks": asks, "sampler": sampler, "chat_template": chat_template}
    spread(
        out,
        judge_chunks,
        score_chunks(completions.rows),
        prompts=prompts,
        completions=completions,
        **who,
    )


def judge_chunks(out: Out, prompts: DatasetRef, completions: DatasetRef, **who: Any) -> None:
    """Write the chunks that are missing. who: the policy, and how it is asked."""
    texts = {row["id"]: row for row in out.lake.rows_of(prompts)}
    with _judge(out, **who) as judge:
        write_scores(out, texts, out.lake.rows_of(completions), judge)


@step(
    "verdicts",
    title="compare {completions.rows} of {completions} by {policy} {asks}",
    expects=matches_expected,
    activity="judging",
    work=lambda prompts, completions, other, asks, **_: judging_itself(
        asks, matches_expected(prompts, completions, other)
    ),
)
def compare_itself(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    other: DatasetRef | None,
    policy: ModelRef,
    asks: SelfJudge,
    sampler: Sampler,
    chat_template: str | None,
    seed: int,
) -> None:
    """A verdict on each match of the first round, or of each completion with each of `other`."""
    who = {"policy": policy, "asks": asks, "sampler": sampler, "chat_template": chat_template}
    chunks = comparison_chunks(len(_matches(out, completions, other, seed)))
    spread(
        out,
        compare_chunks,
        chunks,
        prompts=prompts,
        completions=completions,
        other=other,
        seed=seed,
        **who,
    )
    write_steadiness(out, chunks)


def compare_chunks(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    other: DatasetRef | None,
    seed: int,
    **who: Any,
) -> None:
    """Write the chunks that are missing. who: the policy, and how it is asked."""
    texts = {row["id"]: row for row in out.lake.rows_of(prompts)}
    with _judge(out, **who) as judge:
        write_comparisons(out, texts, _matches(out, completions, other, seed), judge)


def _matches(out: Out, completions: DatasetRef, other: DatasetRef | None, seed: int) -> list[Drawn]:
    return (
        own_matches(out.lake, completions, seed)
        if other is None
        else policy_matches(out.lake, other, completions)
    )


def _judge(
    out: Out, policy: ModelRef, asks: SelfJudge, sampler: Sampler, chat_template: str | None
) -> AbstractContextManager[PolicyJudge]:
    log = out.scratch / f"server-{out.share.index}.log"
    return policy_judge(out.lake, policy, asks, sampler, chat_template, log, out.say)

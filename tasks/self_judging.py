"""The policy judges completions, with the engine that samples from it. How good a judge it is: tasks/judge_quality.py.

    judge_itself(prompts, completions, policy, ...)           ->  verdicts, one per completion
    compare_itself(prompts, completions, other, policy, ...)  ->  verdicts, one per match
Test: pytest tests/flows/test_self_judge.py
"""

from storage import DatasetRef, ModelRef
from tasks.comparing import matches_expected, own_matches, policy_matches, write_comparisons
from tasks.engines.sampler import Sampler
from tasks.judges.policy import policy_judge
from tasks.judges.prompted import SelfJudge
from tasks.judging import write_scores
from tasks.step import Out, step


@step("verdicts", title="judge {completions.rows} of {completions} by {policy} {asks}", expects=lambda completions, **_: completions.rows)
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
    texts = {row["id"]: row for row in out.lake.rows_of(prompts)}
    with policy_judge(out.lake, policy, asks, sampler, chat_template, out.scratch / "server.log", out.say) as judge:
        write_scores(out, texts, out.lake.rows_of(completions), judge)


@step("verdicts", title="compare {completions.rows} of {completions} by {policy} {asks}", expects=matches_expected)
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
    texts = {row["id"]: row for row in out.lake.rows_of(prompts)}
    drawn = own_matches(out.lake, completions, seed) if other is None else policy_matches(out.lake, other, completions)
    with policy_judge(out.lake, policy, asks, sampler, chat_template, out.scratch / "server.log", out.say) as judge:
        write_comparisons(out, texts, drawn, judge)

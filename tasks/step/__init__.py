"""`@step`: a Prefect task whose cache key is a dataset version of the lake. The only place that
knows about caching.

    @step("completions", title="sample {prompts.rows} prompts", expects=..., activity="sampling", work=...)
    def sample(out: Out, policy: ModelRef, prompts: DatasetRef, sampling: Sampling, seed: int) -> None:
        for number, chunk in out.missing(...): out.write(number, rows)
Called without `out`, it returns the reference of the complete version; when the lake holds it
already, in Prefect state `Cached`.
"""

from dapflow.tasks.step.call import Call
from dapflow.tasks.step.context import (
    contents_of,
    current_lake,
    planning,
    rows_if_made,
    use_lake,
)
from dapflow.tasks.step.decorator import step
from dapflow.tasks.step.out import Out, Share
from dapflow.tasks.step.work import Contents, Requests, Work

__all__ = [
    "Call",
    "Contents",
    "Out",
    "Requests",
    "Share",
    "Work",
    "contents_of",
    "current_lake",
    "planning",
    "rows_if_made",
    "step",
    "use_lake",
]

"""`@step`: a Prefect task whose cache key is a dataset version of the lake. The only place that
knows about caching.

    @step("completions", title="sample {prompts.rows} prompts")
    def sample(out: Out, policy: ModelRef, prompts: DatasetRef, sampling: Sampling, seed: int) -> None:
        for number, chunk in out.missing(...): out.write(number, rows)
Called without `out`, it returns the reference of the complete version; when the lake holds it
already, in Prefect state `Cached`.
"""

from dapflow.tasks.step.call import Call
from dapflow.tasks.step.context import current_lake, planning, rows_if_made, use_lake
from dapflow.tasks.step.decorator import step
from dapflow.tasks.step.out import Out, Share

__all__ = [
    "Call",
    "Out",
    "Share",
    "current_lake",
    "planning",
    "rows_if_made",
    "step",
    "use_lake",
]

"""At the end of an iteration: its page and lineage pages in the lake's folder `reports`, and the
outcome as an artifact of the run in Prefect.

publish_report(policy, metrics)  ->  the page's path, as text; empty where it could not be written: an iteration is not lost for its report
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from dapflow.flows.display.figures import laid_out
from dapflow.flows.report.drawing.lineage import write_lineage
from dapflow.flows.report.drawing.page import page, write
from dapflow.flows.report.drawing.terminal import price
from dapflow.flows.report.find import find_policy
from dapflow.flows.report.gather import report_of, run_of
from dapflow.storage import DatasetRef, Lake, ModelRef, UserError
from dapflow.tasks.markdown import as_table, as_text
from dapflow.tasks.step import current_lake
from dapflow.tasks.step.progress import reporter

Row = Mapping[str, Any]
_LONG = 400  # characters of a text in the artifact
_PROMPTS = 24  # of each dataset on the lineage pages


def folder_of(lake: Lake, policy: str) -> Path:
    """Where the pages about a policy are kept."""
    return lake.root / "reports" / policy


@task(
    name="report", task_run_name="report on {policy}", cache_policy=NO_CACHE, persist_result=False
)
def publish_report(policy: ModelRef, metrics: DatasetRef) -> str:
    """The page of the iteration that made `policy`, beside its lineage pages, and the artifact.
    metrics: for the edge of the graph.
    """
    lake = current_lake()
    try:
        found = find_policy(lake, policy.version)
        folder = folder_of(lake, policy.version)
        addresses = write_lineage(
            lake, policy.version, folder / "lineage", _PROMPTS, report="../index.html"
        )
        one = report_of(lake, found)
        write(
            folder / "index.html",
            page(
                [run_of(found) | {"iterations": [one]}],
                {key: f"lineage/{name}" for key, name in addresses.items()},
            ),
        )
    except UserError as error:
        reporter().said(f"The iteration is done, but its report is not: {error}")
        return ""
    create_markdown_artifact(
        key="report",
        markdown=markdown(one, folder),
        description=as_text(f"{one['label']}: {one['outcome']['verdict']}"),
    )
    return str(folder / "index.html")


def markdown(one: Row, folder: Path) -> str:
    """The outcome, the warnings, three examples and the figures, with the paths of the pages."""
    outcome = one["outcome"]
    rate = (
        f": {outcome['win_rate']:.1%} [{outcome['win_rate_low']:.1%}, "
        f"{outcome['win_rate_high']:.1%}]"
        if "win_rate" in outcome
        else ""
    )
    examples = [
        [example["why"], *(example[key] for key in ("prompt", "before", "after"))]
        for example in one["examples"][:3]
    ]
    lines = [[line.name, *line.cells, line.unit] for line in laid_out(one["metrics"])]
    return "\n\n".join(
        [
            f"# {as_text(outcome['verdict'].capitalize() + rate)}",
            as_text(outcome["sentence"]),
            as_text(f"Cost: {price(one['cost'])}."),
            *(f"> {as_text(warning)}" for warning in one["warnings"]),
            f"[The whole report](/reports/{folder.name}/index.html), [where it came "
            f"from](/reports/{folder.name}/lineage/index.html); "
            f"as files: {as_text(folder / 'index.html')}",
            as_table(("", "prompt", "before", "after"), examples, _LONG) if examples else "",
            as_table(("metric", "before", "after", "unit"), lines),
        ]
    )

"""`dapflow report` and `dapflow compare-runs`: what came of a run, and what differs between two;
terminal, JSON, or one HTML page.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dapflow.flows.cli.options import Count, Json, Lake, print_json, reading
from dapflow.flows.display.screen import Screen

Html = Annotated[
    Path | None, Parameter(name="--html", help="Write one HTML page that needs nothing else.")
]


def report(
    *runs: str, html: Html = None, examples: Count = 12, lake: Lake = "lake", as_json: Json = False
) -> None:
    """What came of a run: better or worse, by how much, at what cost; examples, figures, what was
    left out, how to do it again.

    Example: dapflow report newest --html report.html

    Parameters
    ----------
    runs
        A run's id or the beginning of one, `newest` (which is what is meant without any), or a policy; several stand side by side.
    examples
        How many prompts to show with both answers.
    """
    from dapflow.flows.report.drawing.page import page, write
    from dapflow.flows.report.drawing.terminal import print_report
    from dapflow.flows.report.gather import gather

    with reading(lake) as opened:
        gathered = gather(opened, runs or ("newest",), examples)
    if html is not None:
        write(html, page(gathered))
    if as_json:
        print_json({"runs": gathered, **({"html": str(html)} if html else {})})
    else:
        print_report(Screen(), gathered)
        if html is not None:
            print(f"The page: {html}")


def compare_runs(
    a: str,
    b: str,
    /,
    *,
    html: Html = None,
    examples: Count = 12,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """What differs between two runs: parameters, inputs, code, and the outcome by a paired test on
    the prompts both were measured on.

    Example: dapflow compare-runs 3f9c01 newest --html compare.html

    Parameters
    ----------
    a
        A run's id or the beginning of one, `newest`, or a policy; of several iterations the last.
    b
        The other.
    examples
        How many of the prompts whose winner flipped to show.
    """
    from dapflow.flows.report.compare import compare
    from dapflow.flows.report.drawing.page import compare_page, write
    from dapflow.flows.report.drawing.terminal import print_comparison
    from dapflow.flows.report.find import find

    with reading(lake) as opened:
        found = compare(opened, find(opened, a)[-1], find(opened, b)[-1], examples)
    if html is not None:
        write(html, compare_page(found))
    if as_json:
        print_json(found)
    else:
        print_comparison(Screen(), found)
        if html is not None:
            print(f"The page: {html}")

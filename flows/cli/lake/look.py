"""The commands that look into the lake: `dapflow datasets`, `show`, `lineage`, `diff`, `sql`. They
start quickly (no Prefect, no torch).
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dapflow.flows.cli.advice import end
from dapflow.flows.cli.lake import answers, trees, views
from dapflow.flows.cli.options import Count, Json, Lake, Limit, Timeout, print_json, reading
from dapflow.flows.display.screen import Screen, say
from dapflow.storage.asking import question, rows_where
from dapflow.storage.errors import UserError
from dapflow.storage.lake import Lake as OpenLake
from dapflow.storage.refs import Ref
from dapflow.storage.schema import NOUNS

Kind = Literal["prompts", "completions", "verdicts", "acceptances", "pairs", "models", "metrics"]


def datasets(
    *, kind: Kind | None = None, limit: Limit = 50, lake: Lake = "lake", as_json: Json = False
) -> None:
    """List the dataset versions and models of the lake, newest first: kind, rows, size, age, state.

    Example: dapflow datasets --kind pairs

    Parameters
    ----------
    kind
        Only versions of this noun.
    """
    with reading(lake) as opened:
        catalogue = opened.catalogue()
        found = [one for one in catalogue.versions.values() if kind in (None, one.kind)]
        found.sort(key=lambda one: one.opened_at, reverse=True)
        rows = [views.dataset_row(one, catalogue.bytes_of(one.version)) for one in found]
    print_json(rows) if as_json else views.print_datasets(Screen(), rows, limit)


def show(
    what: str,
    /,
    *,
    limit: Limit = 10,
    where: str | None = None,
    timeout: Timeout = 60.0,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Show rows of a dataset: KIND (its newest version), KIND@VERSION, or a version.

    Example: dapflow show pairs --where "dropped is null and margin > 2" --limit 5

    Parameters
    ----------
    what
        A noun such as pairs, a version, or both: pairs@3f9c01.
    where
        Only rows that meet this SQL condition.
    """
    with reading(lake) as opened:
        ref = _newest(opened, what) if what in NOUNS else opened.ref(what)
        columns = ", ".join(
            f'"{name}"'
            for name in opened.schema(ref.kind).names
            if name not in ("version", "token_ids", "logprobs")
        )
        query = f"SELECT {columns} FROM \"{ref.kind}\" WHERE version = '{ref.version}' AND {{condition}} ORDER BY id LIMIT {limit}"
        rows = rows_where(opened, query, "true" if where is None else where, timeout, end)
    print_json(rows) if as_json else views.print_rows(Screen(), ref, rows)


def lineage(
    some_id: str,
    /,
    *,
    rows: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Of a model: every pair it was trained on, with its completions, verdicts and "
                "seeds."
            ),
        ),
    ] = False,
    html: Annotated[
        Path | None,
        Parameter(
            help="Write pages that need no server into this folder: graph, datasets, rows, prompts."
        ),
    ] = None,
    prompts: Count = 24,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Where a row, a dataset or a model came from, up to prompts and seeds, and what came of it,
    down to models and metrics.

    Example: dapflow lineage 3f9c01

    Parameters
    ----------
    some_id
        The id of a row, a dataset version or a model, or the beginning of one.
    prompts
        How many prompts of each dataset the pages follow, with all their rows.
    """
    from dapflow.storage.learned import learned_rows, levels
    from dapflow.storage.lineage import trace, version_of

    with reading(lake) as opened:
        if rows:
            for batch in learned_rows(opened, opened.resolve(some_id)):
                for row in batch.to_pylist():
                    print_json(row) if as_json else say(trees.learned_line(row))
            return
        node = trace(opened, some_id)
        if html is not None:
            from dapflow.flows.report.drawing.lineage import write_lineage

            write_lineage(opened, version_of(node.id), html, prompts, whole=True)
            say(f"The pages: {html / 'index.html'}", sys.stderr if as_json else sys.stdout)
            if not as_json:
                return
        counts = (
            levels(opened, node.id)
            if node.kind == "models"
            and "-" not in node.id
            and node.facts.get("state") == "complete"
            else []
        )
    if as_json:
        print_json(node.as_json() | ({"levels": counts} if counts else {}))
    else:
        trees.print_tree(Screen(), node, counts)


def diff(a: str, b: str, /, *, lake: Lake = "lake", as_json: Json = False) -> None:
    """What changed between two versions of a noun (rows added, removed, changed), or whose answers
    won under two policies.

    Example: dapflow diff pairs@3f9c01 pairs@a7d2

    Parameters
    ----------
    a
        A version, or the beginning of one; two policies are compared by the prompts whose winner flipped.
    b
        The other.
    """
    from dapflow.storage.diff import diff as difference

    with reading(lake) as opened:
        found = difference(opened, a, b)
    print_json(found) if as_json else views.print_diff(Screen(), found)


def sql(
    query: str,
    /,
    *,
    format: Literal["table", "csv", "json", "parquet"] = "table",
    limit: Limit = 100,
    timeout: Timeout = 60.0,
    lake: Lake = "lake",
) -> None:
    """Ask the lake in SQL. It reads the lake's tables and nothing else: no other file, no setting,
    no function with an effect.

    Example: dapflow sql "select outcome, count(*) from verdicts group by outcome" --format csv

    Parameters
    ----------
    query
        One SELECT over prompts, completions, verdicts, acceptances, pairs, models, metrics, versions, edges, runs, iterations;
        `show tables`, `describe TABLE` and `summarize TABLE` say what is in them.
    format
        How the rows are printed; all but table print every row, and every value in full.
    """
    with reading(lake) as opened, question(opened, query, timeout, end) as asked:
        if format == "table":
            answers.print_table(Screen(), asked, limit)
        else:
            answers.print_raw(asked, format)


def _newest(lake: OpenLake, kind: str) -> Ref:
    complete = [
        one
        for one in lake.catalogue().versions.values()
        if one.kind == kind and one.state == "complete"
    ]
    if not complete:
        raise UserError(f"The lake has no complete version of {kind} yet.")
    return lake.ref(max(complete, key=lambda one: one.opened_at).version)

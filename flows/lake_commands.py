"""The commands on the lake: `dapflow datasets`, `show`, `lineage`, `diff`, `sql`, `export`, `import`, `gc`, `verify`.

Each is quick to start (no Prefect, no torch unless it imports a file), reads only, and prints JSON with --json.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
from cyclopts import Parameter, validators
from rich.console import Console

from flows import lake_views as views
from storage.errors import UserError
from storage.lake import Lake as OpenLake
from storage.refs import Ref
from storage.schema import NOUNS

Lake = Annotated[str, Parameter(name="--lake", env_var="DAPFLOW_LAKE", help="Directory of the lake, or postgres:// address.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Limit = Annotated[int, Parameter(help="How many rows at most.", validator=validators.Number(gte=0))]
Kind = Literal["prompts", "completions", "verdicts", "acceptances", "pairs", "models", "metrics"]


def datasets(*, kind: Kind | None = None, limit: Limit = 50, lake: Lake = "lake", as_json: Json = False) -> None:
    """List the dataset versions and models of the lake, newest first: kind, rows, size, age, state.

    Example: dapflow datasets --kind pairs

    Parameters
    ----------
    kind: Only versions of this noun.
    """
    with _reading(lake) as opened:
        catalogue = opened.catalogue()
        found = [one for one in catalogue.versions.values() if kind in (None, one.kind)]
        found.sort(key=lambda one: one.opened_at, reverse=True)
        rows = [views.dataset_row(one, catalogue.bytes_of(one.version)) for one in found]
    _print_json(rows) if as_json else views.print_datasets(Console(), rows, limit)


def show(what: str, /, *, limit: Limit = 10, where: str | None = None, lake: Lake = "lake", as_json: Json = False) -> None:
    """Show rows of a dataset: KIND (its newest version), KIND@VERSION, or a version.

    Example: dapflow show pairs --where "dropped is null and margin > 2" --limit 5

    Parameters
    ----------
    what: A noun such as pairs, a version, or both: pairs@3f9c01.
    where: Only rows that meet this SQL condition.
    """
    with _reading(lake) as opened:
        ref = _newest(opened, what) if what in NOUNS else opened.ref(what)
        columns = ", ".join(f'"{name}"' for name in opened.schema(ref.kind).names if name not in ("version", "token_ids", "logprobs"))
        condition = f" AND ({where})" if where else ""
        query = f"SELECT {columns} FROM \"{ref.kind}\" WHERE version = '{ref.version}'{condition} ORDER BY id LIMIT {limit}"
        rows = opened.rows(query)
    _print_json(rows) if as_json else views.print_rows(Console(), ref, rows)


def lineage(
    some_id: str,
    /,
    *,
    rows: Annotated[
        bool, Parameter(negative=(), help="Of a model: every pair it was trained on, with its completions, verdicts and seeds.")
    ] = False,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Where a row, a dataset or a model came from, up to prompts and seeds, and what came of it, down to models and metrics.

    Example: dapflow lineage 3f9c01

    Parameters
    ----------
    some_id: The id of a row, a dataset version or a model, or the beginning of one.
    """
    from storage.learned import learned_rows, levels
    from storage.lineage import trace

    with _reading(lake) as opened:
        if rows:
            for batch in learned_rows(opened, opened.catalogue().resolve(some_id)):
                for row in batch.to_pylist():
                    print(json.dumps(row, default=str) if as_json else views.learned_line(row))
            return
        node = trace(opened, some_id)
        counts = levels(opened, node.id) if node.kind == "models" and "-" not in node.id and node.facts.get("state") == "complete" else []
    if as_json:
        _print_json(node.as_json() | ({"levels": counts} if counts else {}))
    else:
        views.print_tree(Console(), node, counts)


def diff(a: str, b: str, /, *, lake: Lake = "lake", as_json: Json = False) -> None:
    """What changed between two versions of a noun (rows added, removed, changed), or whose answers won under two policies.

    Example: dapflow diff pairs@3f9c01 pairs@a7d2

    Parameters
    ----------
    a: A version, or the beginning of one; two policies are compared by the prompts whose winner flipped.
    b: The other.
    """
    from storage.diff import diff as difference

    with _reading(lake) as opened:
        found = difference(opened, a, b)
    _print_json(found) if as_json else views.print_diff(Console(), found)


def sql(query: str, /, *, format: Literal["table", "csv", "json", "parquet"] = "table", limit: Limit = 100, lake: Lake = "lake") -> None:
    """Ask the lake in SQL. Read only: the engine refuses everything else.

    Example: dapflow sql "select outcome, count(*) from verdicts group by outcome" --format csv

    Parameters
    ----------
    query: One SELECT over prompts, completions, verdicts, acceptances, pairs, models, metrics, versions, edges, runs, iterations.
    format: How the rows are printed; all but table print every row.
    """
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise UserError(f"The database says: {str(error).splitlines()[0]}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UserError("`dapflow sql` takes one SELECT: the lake is changed by runs only.")
    with _reading(lake) as opened:
        if format == "table":
            views.print_table(Console(), opened.batches(query, rows=limit + 1), limit)
        else:
            views.print_raw(opened, query, format)


def export(version: str, path: Path, /, *, replace: bool = False, lake: Lake = "lake") -> None:
    """Write a version to .parquet, .jsonl or .csv, or (a name without suffix) to a folder for the `datasets` library and TRL.

    Example: dapflow export pairs@3f9c01 ./pairs

    Parameters
    ----------
    version: The version, or the beginning of one.
    path: Where to.
    replace: Overwrite what is there.
    """
    from storage.export import export as write

    with _reading(lake) as opened:
        ref = opened.ref(version)
        with views.waiting(f"export {ref.kind}@{ref.version}"):
            rows = write(opened, ref, path, replace=replace)
    print(f"{rows:,} rows of {ref.kind}@{ref.version} in {path}")


def import_(
    file: Path, /, *, format: Literal["auto", "pairs", "hh", "ultrafeedback"] = "auto", lake: Lake = "lake", as_json: Json = False
) -> None:
    """Bring a file of preferences into the lake: prompt/chosen/rejected, HH transcripts, or UltraFeedback; .jsonl, .jsonl.gz, .parquet.

    Example: dapflow import hh.jsonl.gz

    Parameters
    ----------
    file: The file.
    format: Its form; auto looks at each record.
    """
    from flows.environment import prepare

    prepare(None)
    from tasks.preferences import import_preferences

    with OpenLake(lake) as opened, views.counting(f"import {file.name}") as count:
        ref = import_preferences(opened, file, format, count)
        reasons = opened.rows("SELECT dropped, count(*) AS n FROM pairs WHERE version = ? GROUP BY dropped", [ref.version])
    left_out = {row["dropped"]: row["n"] for row in reasons if row["dropped"]}
    if as_json:
        _print_json({"version": ref.version, "rows": ref.rows, "left_out": left_out})
    else:
        print(f"pairs@{ref.version}: {ref.rows:,} pairs" + "".join(f", {count:,} left out as {why}" for why, count in left_out.items()))
        print(f"train on them: dapflow run rso --set preferences.source=pairs@{ref.version}")


def gc(
    *,
    runs: Count = 5,
    keep: tuple[str, ...] = (),
    yes: Annotated[bool, Parameter(negative=(), help="Do it. Without: only say what would go.")] = False,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Free what no kept model needs: versions left open by dead runs, datasets and weights of old runs. Says what, until --yes.

    Example: dapflow gc --runs 10 --keep 3f9c01 --yes

    Parameters
    ----------
    runs: Keep the policies of so many of the newest finished runs of each recipe, with all they came from.
    keep: Keep this version too, and all it came from; repeatable.
    """
    from storage.garbage import collect, find_garbage

    with _existing(lake) if yes else _reading(lake) as opened:
        found = find_garbage(opened, runs=runs, keep=[opened.catalogue().resolve(one).partition("-")[0] for one in keep])
        if yes:
            with views.waiting("remove"):
                collect(opened, found)
    rows = [views.dataset_row(one.info, one.bytes) | {"why": one.why} for one in found]
    _print_json({"removed": yes, "bytes": sum(one.bytes for one in found), "versions": rows}) if as_json else views.print_garbage(
        Console(), rows, yes
    )


def verify(
    *,
    repair: Annotated[
        bool, Parameter(negative=(), help="Take what is damaged out of the lake: its recipe's next run makes it anew.")
    ] = False,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Check every file of every complete version against its size and checksum. Exit code 2 when something is damaged.

    Example: dapflow verify
    """
    from storage.files import verify as check
    from storage.versions import forget

    damaged: list[dict[str, Any]] = []
    checked = 0
    with _existing(lake) if repair else _reading(lake) as opened, views.counting("verify") as count:
        for ref, damages in check(opened):
            checked += 1
            count(checked)
            if damages:
                info = opened.catalogue().versions[ref.version]
                damaged.append(views.dataset_row(info, 0) | {"files": [{"path": one.path, "what": one.what} for one in damages]})
        if repair:
            forget(opened, [row["version"] for row in damaged])
    _print_json({"checked": checked, "damaged": damaged, "repaired": repair}) if as_json else views.print_damage(
        Console(), checked, damaged
    )
    if damaged and not repair:
        raise UserError(f"{len(damaged)} of {checked} versions are damaged: `dapflow verify --repair` takes them out, to be made anew.")


COMMANDS = {
    "datasets": datasets, "show": show, "lineage": lineage, "diff": diff, "sql": sql,
    "export": export, "import": import_, "gc": gc, "verify": verify,
}  # fmt: skip


def _existing(address: str) -> OpenLake:
    """A lake to write to, which must be there."""
    OpenLake(address, read_only=True).close()
    return OpenLake(address)


@contextmanager
def _reading(address: str) -> Iterator[OpenLake]:
    """A lake to read from; what is wrong with a query becomes a sentence."""
    with OpenLake(address, read_only=True) as opened:
        try:
            yield opened
        except duckdb.Error as error:
            raise UserError(f"The database says: {str(error).splitlines()[0]}") from error


def _newest(lake: OpenLake, kind: str) -> Ref:
    complete = [one for one in lake.catalogue().versions.values() if one.kind == kind and one.state == "complete"]
    if not complete:
        raise UserError(f"The lake has no complete version of {kind} yet.")
    return lake.ref(max(complete, key=lambda one: one.opened_at).version)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=str))

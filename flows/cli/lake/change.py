"""The commands that write, or keep the lake in order: `dapflow export`, `import`, `gc`, `verify`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from dapflow.flows.cli.lake import views
from dapflow.flows.cli.options import Count, Json, Lake, existing, print_json, reading
from dapflow.flows.display import bars
from dapflow.flows.display.screen import Screen, say
from dapflow.storage.errors import UserError
from dapflow.storage.lake import Lake as OpenLake


def export(version: str, path: Path, /, *, replace: bool = False, lake: Lake = "lake") -> None:
    """Write a version to .parquet, .jsonl or .csv, or (a name without suffix) to a folder for the
    `datasets` library and TRL.

    Example: dapflow export pairs@3f9c01 ./pairs

    Parameters
    ----------
    version
        The version, or the beginning of one.
    path
        Where to.
    replace
        Overwrite what is there.
    """
    from dapflow.storage.export import export as write

    with reading(lake) as opened:
        ref = opened.ref(version)
        with bars.waiting(f"export {ref.kind}@{ref.version}"):
            rows = write(opened, ref, path, replace=replace)
    say(f"{rows:,} rows of {ref.kind}@{ref.version} in {path}")


def import_(
    file: Path,
    /,
    *,
    format: Literal["auto", "pairs", "hh", "ultrafeedback"] = "auto",
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Bring a file of preferences into the lake: prompt/chosen/rejected, HH transcripts, or
    UltraFeedback; .jsonl, .json (.gz), .parquet.

    Example: dapflow import hh.jsonl.gz

    Parameters
    ----------
    file
        The file.
    format
        Its form; auto looks at each record.
    """
    from dapflow.flows.server.environment import prepare

    prepare(None)
    from dapflow.tasks.prompts.formats import REASONS
    from dapflow.tasks.prompts.preferences import import_preferences

    with OpenLake(lake) as opened, bars.counting(f"import {file.name}") as count:
        ref = import_preferences(opened, file, format, count)
        query = (
            "SELECT dropped, count(*) AS n, count(margin) AS margins FROM pairs WHERE version = ? "
            "GROUP BY dropped ORDER BY dropped"
        )
        reasons = opened.rows(query, [ref.version])
    left_out = {row["dropped"]: row["n"] for row in reasons if row["dropped"]}
    with_margin = sum(row["margins"] for row in reasons if row["dropped"] is None)
    if as_json:
        print_json(
            {
                "version": ref.version,
                "rows": ref.rows,
                "left_out": left_out,
                "with_margin": with_margin,
            }
        )
    else:
        say(
            f"pairs@{ref.version}: {ref.rows:,} pairs"
            + "".join(f", {count:,} left out as {why}" for why, count in left_out.items())
        )
        for why in left_out:
            say(f"  {why}: {REASONS.get(why, 'as the file says')}")
        kept = ref.rows - sum(left_out.values())
        if with_margin < kept:
            say(
                f"of the {kept:,} others {kept - with_margin:,} without a margin: no scores, or "
                "none that are numbers"
            )
        train = f"train on them: dapflow run rso --set preferences.source=pairs@{ref.version}"
        say(train if kept else "no pair is left to train on")


def gc(
    *,
    runs: Count = 5,
    keep: tuple[str, ...] = (),
    yes: Annotated[
        bool, Parameter(negative=(), help="Do it. Without: only say what would go.")
    ] = False,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Free what no kept model needs: versions left open by dead runs, datasets and weights of old
    runs. Says what, until --yes.

    Example: dapflow gc --runs 10 --keep 3f9c01 --yes

    Parameters
    ----------
    runs
        Keep the policies of so many of the newest finished runs of each recipe, with all they came from.
    keep
        Keep this version too, and all it came from; repeatable.
    """
    from dapflow.storage.garbage import collect, find_garbage
    from dapflow.tasks.prompts.preferences import IMPORTED

    with existing(lake) if yes else reading(lake) as opened:
        versions = [opened.resolve(name).partition("-")[0] for name in keep]
        found = find_garbage(opened, imports=[IMPORTED], runs=runs, keep=versions)
        if yes:
            with bars.waiting("remove"):
                collect(opened, found)
    rows = [views.dataset_row(one.info, one.bytes) | {"why": one.why} for one in found]
    print_json(
        {"removed": yes, "bytes": sum(one.bytes for one in found), "versions": rows}
    ) if as_json else views.print_garbage(Screen(), rows, yes)


def verify(
    *,
    repair: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Take what is damaged out of the lake: its recipe's next run makes it anew.",
        ),
    ] = False,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Check every file of every complete version against its size and checksum. Exit code 2 when
    something is damaged.

    Example: dapflow verify
    """
    from dapflow.storage.files import verify as check
    from dapflow.storage.versions import forget

    damaged: list[dict[str, Any]] = []
    checked = 0
    with existing(lake) if repair else reading(lake) as opened, bars.counting("verify") as count:
        for ref, damages in check(opened):
            checked += 1
            count(checked)
            if damages:
                info = opened.catalogue().versions[ref.version]
                damaged.append(
                    views.dataset_row(info, 0)
                    | {"files": [{"path": one.path, "what": one.what} for one in damages]}
                )
        if repair:
            forget(opened, [row["version"] for row in damaged])
    print_json(
        {"checked": checked, "damaged": damaged, "repaired": repair}
    ) if as_json else views.print_damage(Screen(), checked, damaged)
    if damaged and not repair:
        raise UserError(
            f"{len(damaged)} of {checked} versions are damaged: `dapflow verify --repair` takes "
            "them out, to be made anew."
        )

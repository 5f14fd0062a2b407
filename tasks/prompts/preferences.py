"""Labelled preferences enter the lake, whatever the file calls its fields.

load_preferences(source="shipped", ...)  ->  pairs          import_preferences(lake, Path("hh.jsonl.gz"))  ->  pairs
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import Lake, OpenVersion, Ref, UserError, version_digest
from dapflow.storage.versions import Opening, forget, open_version
from dapflow.tasks.prompts.formats import Format, check_left_out, preference
from dapflow.tasks.prompts.row import text_digest
from dapflow.tasks.prompts.sources import find_source, read_source, stream_source
from dapflow.tasks.prompts.work import preferences
from dapflow.tasks.step import Out, step
from dapflow.tasks.step.code_version import code_version

PREFERENCES_FILE = "preferences.jsonl"
IMPORTED = "import_preferences"  # the step of data that a user has brought
Part = Literal["reward", "judge", "test"]
_PARTS: tuple[tuple[Part, int], ...] = (
    ("reward", 50),
    ("judge", 35),
    ("test", 15),
)  # per cent of the prompts
_CHUNK = 10_000


class Preferences(BaseModel):
    """Labelled pairs that the reward model and the independent judge learn from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str = Field(
        default="shipped",
        description=(
            "`shipped`, a .jsonl or .parquet file with `prompt`, `chosen`, `rejected`, or "
            "`pairs@VERSION` of the lake"
        ),
    )


@step(
    "pairs",
    title="load preferences ({part})",
    expects=lambda source, part, **_: len(rows_of_part(source, part)),
    activity="loading",
    work=lambda source, digest, part: preferences(source, digest, len(rows_of_part(source, part))),
)
def load_preferences(out: Out, source: str, digest: str, part: Part) -> None:
    """Labelled pairs of one part of a source; a prompt's pairs are all in the same part. What
    cannot be learned from is kept as dropped.

    `digest`: of the source's content, so that a changed file is another version.
    """
    rows = rows_of_part(source, part)
    if not rows:
        raise UserError(
            f"{source} has no preferences for the part `{part}`: it needs at least about 20 pairs "
            "with different prompts."
        )
    say_left_out(out, source, rows)
    out.write(0, [{"id": out.row_id(n), **row} for n, row in enumerate(rows)])


def say_left_out(out: Out, source: str, rows: Sequence[dict[str, Any]]) -> None:
    """Tell the user how many preferences nothing is learned from, by reason."""
    if reasons := Counter(row["dropped"] for row in rows if row["dropped"]):
        told = ", ".join(
            f"{count:,} as {reason.replace('_', ' ')}" for reason, count in sorted(reasons.items())
        )
        out.say(f"Of {len(rows):,} preferences of {source} left out: {told}.")


def import_preferences(
    lake: Lake, path: Path, form: Format = "auto", on_rows: Callable[[int], None] = lambda _: None
) -> Ref:
    """A file of preferences as a version of `pairs`, committed chunk by chunk; a recipe takes it as
    `preferences.source=pairs@VERSION`.

    form: see `dapflow.tasks.prompts.formats`. Raises UserError, naming the line, for what is none
    of these.
    """
    source = find_source(str(path), PREFERENCES_FILE)
    code, parameters = (
        code_version(__name__),
        {"file": path.name, "digest": source.digest, "format": form},
    )
    version = version_digest(IMPORTED, code, parameters, {})
    with open_version(
        lake,
        Opening(
            kind="pairs",
            version=version,
            step=IMPORTED,
            activity="loading",
            code=code,
            parameters=parameters,
        ),
    ) as opened:
        if not isinstance(opened, OpenVersion):
            return opened
        try:
            _write(opened, path, form, on_rows)
        except UserError:
            forget(lake, [version])
            raise
        return opened.complete({}, None, None)


def _write(opened: OpenVersion, path: Path, form: Format, on_rows: Callable[[int], None]) -> None:
    records, chunk = enumerate(stream_source(str(path), PREFERENCES_FILE)), 0
    reasons, first = Counter[str | None](), path.name
    while numbered := list(islice(records, _CHUNK)):
        if chunk not in opened.done:
            opened.write(
                chunk,
                rows := [
                    {"id": opened.row_id(n), **preference(record, form)} for n, record in numbered
                ],
            )
        else:
            rows = opened.rows(chunk)
        reasons.update(row["dropped"] for row in rows)
        first = rows[0]["source"] if chunk == 0 else first
        chunk += 1
        on_rows(numbered[-1][0] + 1)
    if not chunk:
        raise UserError(f"{path} is empty: it needs at least one pair.")
    check_left_out(path.name, reasons, first)


def part_of(prompt: str) -> Part:
    """The part that a prompt's preferences belong to, by its digest: nobody is trained and tested
    on the same prompt.
    """
    place = int(text_digest(prompt), 16) % 100
    for part, share in _PARTS:
        if place < share:
            return part
        place -= share
    raise AssertionError("the shares add up to 100")


def rows_of_part(source: str, part: Part) -> list[dict[str, Any]]:
    """The preferences of a source whose prompts belong to that part, those left out among them.
    Raises UserError where all are left out.
    """
    rows = [preference(record) for record in read_source(source, PREFERENCES_FILE)]
    check_left_out(source, Counter(row["dropped"] for row in rows), rows[0]["source"])
    return [row for row in rows if part_of(row["prompt"]) == part]

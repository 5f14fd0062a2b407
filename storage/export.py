"""A version as files that other programs read: Parquet, JSON lines, CSV, or a folder for the
`datasets` library.

    export(lake, lake.find("3f9c01aa3f9c01aa"), Path("pairs.jsonl"))
Rows stream through DuckDB, which spills what does not fit, so a version may be larger than memory.
"""

from pathlib import Path

from dapflow.storage.database import quoted
from dapflow.storage.errors import LakeError, Remedy, lake_errors
from dapflow.storage.lake import Lake
from dapflow.storage.refs import Ref
from dapflow.storage.replacing import replacing

FORMATS = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".jsonl": "FORMAT json",
    ".ndjson": "FORMAT json",
    ".csv": "FORMAT csv, HEADER",
}
_FOLDER_FILE = "data/train-00000-of-00001.parquet"  # where `datasets.load_dataset(folder)` looks
_PREFERENCES = """SELECT [{{'role': 'user', 'content': prompt}}] AS prompt, [{{'role': 'assistant', 'content': chosen}}] AS chosen,
    [{{'role': 'assistant', 'content': rejected}}] AS rejected FROM ({rows}) WHERE dropped IS NULL"""


def export(lake: Lake, ref: Ref, path: Path, *, replace: bool = False) -> int:
    """Write the rows of a complete version to `path`, all or nothing, and return how many.

    .parquet, .jsonl and .csv hold every row and column; a path without suffix becomes a folder that
    `datasets.load_dataset` opens, and for pairs has the standard preference format: `prompt`,
    `chosen` and `rejected` as messages, without the pairs that were left out. Raises LakeError when
    the path is taken or its suffix is none of these.
    """
    if path.suffix not in ("", *FORMATS):
        raise LakeError(
            f"{path}: write to {', '.join(FORMATS)}, or to a folder (a name without suffix) for "
            "the datasets library."
        )
    if path.is_dir() and (
        path.suffix
        or [one.relative_to(path) for one in path.rglob("*") if one.is_file()]
        != [Path(_FOLDER_FILE)]
    ):
        raise LakeError(f"{path} is a directory that no export has made: choose another name.")
    if path.exists() and not replace:
        raise LakeError(
            f"{path} is there already: choose another name, or have it replaced.",
            Remedy.REPLACE_FILE,
        )
    folder = not path.suffix
    query, parameters = lake.query_of(ref)
    if folder and ref.kind == "pairs":
        query = _PREFERENCES.format(rows=query)
    with lake_errors(lake.location.address), replacing(path) as partial:
        target = partial / _FOLDER_FILE if folder else partial
        _reserve(target)
        with lake.cursor() as cursor:
            options = FORMATS[path.suffix or ".parquet"]
            written = cursor.execute(
                f"COPY ({query}) TO '{quoted(target)}' ({options})", parameters
            ).fetchone()
    assert written is not None
    return int(written[0])


def _reserve(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    except OSError as error:
        raise LakeError(
            f"{target.parent} cannot be written ({error.strerror}): export to another place."
        ) from error

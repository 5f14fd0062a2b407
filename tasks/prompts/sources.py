"""Where prompts and preferences come from: the shipped sets, a JSONL, JSON or Parquet file, or a
data set of the model hub.

Every record keeps its place ("prompts.jsonl:12"), and malformed ones are named by it.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dapflow.storage import Lake, UserError
from dapflow.tasks.step import current_lake

SHIPPED = Path(__file__).parent / "data"
_NAMED = {"shipped-instructions": "instruction_prompts.jsonl"}  # sets beside the usual ones
_HUB_PREFIX, _LAKE_PREFIX = "hub:", "pairs@"
_HALF = re.compile(
    r"\\u[dD][89a-fA-F]"
)  # a surrogate, of which JSON has two for a character beyond the first 65,536


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of a source. `place` says where it stands, for messages and for the lake."""

    place: str
    fields: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """The first of these fields that is there; UserError when none is, or when it is not a
        non-empty string.
        """
        for name in names:
            if name in self.fields:
                value = self.fields[name]
                if isinstance(value, str) and value.strip():
                    return value
                raise UserError(f"{self.place}: `{name}` must be a non-empty string.")
        raise UserError(
            f"{self.place}: there is no `{names[0]}` (fields: {', '.join(self.fields) or 'none'})."
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source that has been found: its name and the digest of its content, which is part of every
    version made from it.
    """

    name: str
    digest: str


def find_source(name: str, shipped: str) -> Source:
    """`name`: "shipped" (the project's own file `shipped`), "shipped-instructions" (prompts with
    constraints), a path to .jsonl or .parquet, or "hub:org/dataset".

    Raises UserError when there is no such file.
    """
    if name.startswith(_LAKE_PREFIX):
        version = _of_lake(name)[1]
        return Source(name=_LAKE_PREFIX + version, digest=version)
    if name.startswith(_HUB_PREFIX):
        return Source(name=name, digest=_hub_revision(name))
    path = _path(name, shipped)
    if not path.is_file():
        raise UserError(
            f"There is no file {path}: give a .jsonl or .parquet file, `shipped`, or "
            "`hub:org/dataset`."
        )
    with path.open("rb") as content:
        return Source(name=name, digest=hashlib.file_digest(content, "sha256").hexdigest()[:16])


def read_source(name: str, shipped: str) -> list[Record]:
    """All records of a source, in its order. Raises UserError, naming the line, for what cannot be
    read.
    """
    records = list(stream_source(name, shipped))
    if not records:
        raise UserError(
            f'{name} is empty: it needs at least one record, such as {{"prompt": "Why is the sky '
            f'blue?"}}.'
        )
    return records


def stream_source(name: str, shipped: str) -> Iterator[Record]:
    """The same, one record after the other, however large the source is."""
    if name.startswith(_LAKE_PREFIX):
        return _lake_records(name)
    return (
        _hub_records(name) if name.startswith(_HUB_PREFIX) else _file_records(_path(name, shipped))
    )


def _path(name: str, shipped: str) -> Path:
    file = _NAMED.get(name) or (shipped if name == "shipped" else None)
    return SHIPPED / file if file else Path(name).expanduser()


def _file_records(path: Path) -> Iterator[Record]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet_records(path)
        return
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if suffix == ".gz"
            else path.open(encoding="utf-8-sig") as lines
        ):
            if path.name.lower().removesuffix(".gz").endswith(".json"):
                yield from _json_records(lines.read(), path.name)
            else:
                yield from _line_records(lines, path.name)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}.") from error


def _line_records(lines: Iterable[str], file: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Record(place=f"{file}:{number}", fields=_json_object(line, f"{file}:{number}"))


def _json_records(text: str, file: str) -> Iterator[Record]:
    """An array of objects, or one; of what begins with no bracket its lines, where it is not one
    object.
    """
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise UserError(f"{file}: not valid JSON ({error}).") from error
        yield from _line_records(StringIO(text), file)
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        if not isinstance(row, dict):
            raise UserError(
                f'{file}, row {number}: expected an object such as {{"prompt": "..."}}, not '
                f"{type(row).__name__}."
            )
        check_text(row, f"{file}, row {number}")
        yield Record(place=f"{file}, row {number}", fields=row)


def _parquet_records(path: Path) -> Iterator[Record]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(10_000):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(place=f"{path.name}:{number}", fields=row)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}"
        ) from error


def _lake_records(name: str) -> Iterator[Record]:
    lake, version = _of_lake(name)
    for batch in lake.batches("SELECT * FROM pairs WHERE version = ? ORDER BY id", [version]):
        for row in batch.to_pylist():
            yield Record(place=row["id"], fields=row)


def _of_lake(name: str) -> tuple[Lake, str]:
    lake = current_lake()
    version = lake.resolve(name)
    if lake.find(version) is None:
        raise UserError(f"{name} is not a complete version: import it again.")
    return lake, version


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place}: not valid JSON ({error.msg} at column {error.colno})."
        ) from error
    except RecursionError as error:
        raise UserError(f"{place}: not valid JSON (too deeply nested).") from error
    if _HALF.search(line):
        check_text(value, place)
    if not isinstance(value, dict):
        raise UserError(
            f'{place}: expected a JSON object such as {{"prompt": "..."}}, found '
            f"{type(value).__name__}."
        )
    return value


def check_text(value: Any, place: str) -> None:
    """Raise UserError, naming the place, for text with half a character in it (a lone surrogate),
    as cutting a text in UTF-16 leaves it.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise UserError(
            f"{place}: half a character ({half}), as cutting a text in the middle of an emoji "
            "leaves it: take it out."
        ) from error


def _hub_revision(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return str(HfApi().dataset_info(name.removeprefix(_HUB_PREFIX), timeout=20).sha)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(name) from error


def _hub_records(name: str) -> Iterator[Record]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(
            name.removeprefix(_HUB_PREFIX), split="train", revision=_hub_revision(name)
        )
    except (DatasetsError, OSError, ValueError) as error:
        raise _unreachable(name) from error
    for number, row in enumerate(rows, start=1):
        yield Record(place=f"{name}:{number}", fields=dict(row))


def _unreachable(name: str) -> UserError:
    return UserError(
        f"The data set {name} cannot be had from the model hub: check its name and the network, "
        "or give a .jsonl or .parquet file."
    )

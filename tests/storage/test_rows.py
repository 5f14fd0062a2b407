"""What Python reads of each relation is what the schema says that it holds."""

from typing import Any, get_args

import pyarrow as pa

_TYPES = {
    pa.string(): str, pa.bool_(): bool, pa.int32(): int, pa.int64(): int, pa.float64(): float,
    pa.list_(pa.string()): list[str], pa.list_(pa.int32()): list[int],
    pa.list_(pa.float32()): list[float],
}  # fmt: skip


def stored(hint: Any) -> Any:
    """The type of a value that is there: without None, and of words that it is one of, `str`."""
    [kind] = [one for one in get_args(hint) or [hint] if one is not type(None)] or [hint]
    return kind

"""A file or a folder of files that is there whole or not at all: written under another name, then
renamed.

    with replacing(path) as partial:
        partial.write_text("...")
Test: pytest tests/storage/test_replacing.py
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Where to write what takes the place of `path` when the block ends; beside it, under a name of
    its own. After an exception `path` is as it was.

    durable: on the disk before it has its name, so that not even a power cut leaves half of it.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        if durable:
            synchronise(partial)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
        if durable:
            synchronise(path.parent)
    finally:
        remove(partial)


def synchronise(path: Path) -> None:
    """Bring a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """A file, or a folder with all in it; none is fine."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

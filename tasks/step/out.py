"""What a step writes to, and which share of it where several write."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dapflow.storage import OpenVersion
from dapflow.storage.logs import log
from dapflow.storage.runs import current_run
from dapflow.tasks.step.artifacts import ProgressArtifact
from dapflow.tasks.step.progress import reporter

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which chunks of a step one of several writers writes: index, index + count, index + 2 count
    ...
    """

    index: int = 0
    count: int = 1

    def __contains__(self, chunk: int) -> bool:
        return chunk % self.count == self.index

    def __str__(self) -> str:
        return f"shard {self.index + 1} of {self.count}"


_WHOLE = Share()


class Out:
    """What a step writes to: the open version, its missing chunks, its progress. share: what of it,
    if others write the rest.
    """

    def __init__(
        self, opened: OpenVersion, progress: ProgressArtifact, share: Share = _WHOLE
    ) -> None:
        self.lake = opened.lake
        self.kind = opened.kind
        self.version = opened.version
        self.row_id = opened.row_id
        self.write = opened.write
        self.rows = opened.rows
        self.publish = opened.publish
        self.all_rows = opened.all_rows
        self._opened = opened
        self._progress = progress
        self.share = share

    @property
    def scratch(self) -> Path:
        """A directory for checkpoints that outlives a crash of this step."""
        return self._opened.scratch

    def missing(self, chunks: Iterable[Item]) -> Iterator[tuple[int, Item]]:
        """The chunks of its share that are not committed yet, with their numbers."""
        for number, chunk in enumerate(chunks):
            if number in self.share and number not in self._opened.done:
                yield number, chunk

    def written(self) -> set[int]:
        """The chunks that are there by now, whoever wrote them."""
        return self._opened.written()

    def pending(self, chunk: int) -> bool:
        """Whether this chunk is still to be written."""
        return chunk not in self._opened.done

    def say(self, sentence: str) -> None:
        """Tell the user something worth knowing."""
        reporter().said(sentence)
        log("step.said", run=current_run(), version=self.version, kind=self.kind, note=sentence)

    def progress(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Show that `done` of `total` units are through, and, in a few words, how it is going."""
        reporter().advanced(done, total, unit, note)
        self._progress.update(done / total if total else 1.0, note)

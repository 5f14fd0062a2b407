"""What a lake holds, asked for as cheaply as the question allows: is a version complete, which
files has it, what do all hang together like.

Every commit makes the catalogue in memory old. Reading it again takes 35 ms, a question to the lake
about one version 10 ms, a question that was asked before at the same snapshot 4 ms: so the first
few questions go to the lake, the next one reads the catalogue.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from dapflow.storage.catalogue import (
    Catalogue,
    DataFile,
    data_files,
    latest_snapshot,
    load_catalogue,
)
from dapflow.storage.database import Connection
from dapflow.storage.errors import lake_errors
from dapflow.storage.location import Location
from dapflow.storage.patience import patiently
from dapflow.storage.refs import Ref, ref_of

T = TypeVar("T")
_QUESTIONS = 3  # at one snapshot, before the catalogue is read


class Index:
    """cursor: makes a cursor on the lake, attached as `name`. Several threads may ask at once."""

    def __init__(
        self,
        location: Location,
        name: str,
        cursor: Callable[[], AbstractContextManager[Connection]],
    ) -> None:
        self._location, self._name, self._cursor = location, name, cursor
        self._catalogue: Catalogue | None = None
        self._answers: tuple[int, dict[Hashable, Any]] = (
            -1,
            {},
        )  # the snapshot that they are true at, and the answers by question

    def catalogue(self) -> Catalogue:
        """All of it as it is now, read again only when somebody has committed something."""
        return self._catalogue_at(self._snapshot())

    def find(self, version: str) -> Ref | None:
        """The reference of a complete version, or None."""

        def ask(cursor: Connection) -> Ref | None:
            found = cursor.execute(
                "SELECT kind, rows FROM versions WHERE version = ? AND state = 'complete'",
                [version],
            ).fetchone()
            return ref_of(found[0], version, found[1]) if found else None

        def look(catalogue: Catalogue) -> Ref | None:
            info = catalogue.versions.get(version)
            return (
                None
                if info is None or info.state != "complete"
                else ref_of(info.kind, version, info.rows)
            )

        return self._ask(("find", version), ask, look)

    def files_of(self, version: str) -> tuple[DataFile, ...]:
        """All files of a version, whatever their noun."""
        return self._ask(
            ("files", version),
            lambda cursor: tuple(data_files(cursor, self._name, self._location.data, version)),
            lambda catalogue: catalogue.all_files_of(version),
        )

    def refresh(self) -> None:
        """Forget what is known, although nobody has committed."""
        self._catalogue, self._answers = None, (-1, {})

    def _ask(
        self, question: Hashable, ask: Callable[[Connection], T], look: Callable[[Catalogue], T]
    ) -> T:
        snapshot = self._snapshot()
        if self._answers[0] != snapshot:
            self._answers = (snapshot, {})
        _, answers = self._answers
        if question in answers:
            return answers[question]
        if len(answers) >= _QUESTIONS or (
            self._catalogue is not None and self._catalogue.snapshot == snapshot
        ):
            return look(self._catalogue_at(snapshot))
        with lake_errors(self._location.address), self._cursor() as cursor:
            answers[question] = found = patiently(lambda: ask(cursor))
        return found

    def _catalogue_at(self, snapshot: int) -> Catalogue:
        if self._catalogue is None or self._catalogue.snapshot != snapshot:
            with lake_errors(self._location.address), self._cursor() as cursor:
                self._catalogue = patiently(
                    lambda: load_catalogue(cursor, self._name, self._location.data, snapshot)
                )
        return self._catalogue

    def _snapshot(self) -> int:
        with lake_errors(self._location.address), self._cursor() as cursor:
            return patiently(lambda: latest_snapshot(cursor, self._name))

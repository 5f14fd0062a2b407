"""What people are asked, and every key that they press: a label is in the lake before the next
question is shown.

    ask(lake, version, run, "anna", None, questions)       # those that were not asked before
    add_label(lake, key, "first", "second", 4.2)           # committed when it returns; "undo" takes back
    latest_labels(lake, keys)                              # the newest of each, whoever wrote it down, in whatever process
Writes the tables `questions` and `labels`. Test: pytest tests/storage/test_labels.py
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from dapflow.storage.database import Connection
from dapflow.storage.lake import Lake

Side = Literal["first", "second"]
Label = Literal["first", "second", "tie", "skip", "undo"]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The newest label of a question."""

    label: Label
    left_side: Side


@dataclass(frozen=True, kw_only=True)
class Question:
    """Two answers to a prompt, of which a person says which is better. The same two in the other
    order are the same question.
    """

    person: str
    instruction: str | None
    prompt: str
    first: str
    second: str

    @classmethod
    def of(
        cls, person: str, instruction: str | None, prompt: str, one: str, other: str
    ) -> "Question":
        """The question about two answers, in whichever order they come."""
        first, second = sorted((one, other))
        return cls(
            person=person, instruction=instruction, prompt=prompt, first=first, second=second
        )

    @property
    def key(self) -> str:
        """Recognises the question in whatever run it is asked."""
        content = [self.person, self.instruction, self.prompt, self.first, self.second]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A version that waits for a person. enough: labels that it needs, None for all. seed: of the
    order of questions and places.
    """

    version: str
    run: str | None
    enough: int | None
    seed: int
    questions: Sequence[Question]


def ask(lake: Lake, version: str, run: str | None, questions: Sequence[Question]) -> None:
    """Write down what a version waits for, once."""
    columns = {
        name: [getattr(one, name) for one in questions]
        for name in ("key", "person", "instruction", "prompt", "first", "second")
    }
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def work(cursor: Connection) -> None:
        cursor.register("asked", table)
        cursor.execute("UPDATE questions SET run = ? WHERE version = ?", [run, version])
        cursor.execute(
            "INSERT INTO questions SELECT key, ?, ?, person, instruction, prompt, first, second, "
            "now() FROM asked"
            " WHERE key NOT IN (SELECT key FROM questions WHERE version = ?)",
            [version, run, version],
        )
        cursor.unregister("asked")

    lake.commit(work, f"ask {len(questions)} questions")


def add_label(lake: Lake, key: str, label: Label, left_side: Side, seconds: float | None) -> None:
    """Write a label down: it is in the lake, for good, when this returns."""
    lake.commit(
        lambda cursor: cursor.execute(
            "INSERT INTO labels VALUES (?, ?, ?, ?, now())", [key, label, left_side, seconds]
        ),
        "label",
    )


def latest_labels(lake: Lake, keys: Iterable[str]) -> dict[str, Labelled]:
    """The newest label of each question that has one; what was taken back has none."""
    wanted = set(keys)
    rows: list[dict[str, Any]] = lake.rows(
        "SELECT key, arg_max({'label': label, 'left': left_side}, labelled_at) AS newest FROM "
        "labels GROUP BY key"
    )
    found = {
        row["key"]: Labelled(label=row["newest"]["label"], left_side=row["newest"]["left"])
        for row in rows
        if row["key"] in wanted
    }
    return {key: labelled for key, labelled in found.items() if labelled.label != "undo"}


def waiting(lake: Lake) -> list[Waiting]:
    """The versions that wait for a person, oldest first, each with all that it has asked."""
    rows = lake.rows(
        "SELECT q.*, v.parameters FROM questions q JOIN versions v USING (version) WHERE v.state "
        "= 'open' ORDER BY v.opened_at, q.asked_at"
    )
    asked: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        asked.setdefault(row["version"], []).append(row)
    names = ("person", "instruction", "prompt", "first", "second")
    return [
        Waiting(
            version=version,
            run=some[0]["run"],
            enough=json.loads(some[0]["parameters"])["by"]["labels"],
            seed=json.loads(some[0]["parameters"])["by"]["seed"],
            questions=[Question(**{name: row[name] for name in names}) for row in some],
        )
        for version, some in asked.items()
    ]

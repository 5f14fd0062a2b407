"""The line of promoted policies: who came after whom, and why; rows of `promotions`, which are only
ever added.

    line = line_of(lake, digest)          what the next night starts from
    decide(lake, line, ...)               one row, unless somebody else has added one since `line` was read
A line is named by the digest of the model that it began with, so that policies of different
families never follow one another. Test: pytest tests/storage/test_promotions.py
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dapflow.storage.database import Connection
from dapflow.storage.errors import UserError
from dapflow.storage.lake import Lake
from dapflow.storage.logs import log
from dapflow.storage.policies import CALLED, PROMOTED
from dapflow.storage.refs import ModelRef

Action = Literal["promote", "keep", "promote by hand", "roll back"]
Figures = Mapping[str, tuple[float, float | None, float | None]]
"""Value and 95 % interval by name."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Where a line has got to. policy: None while it is still at the model that it began with;
    slice: the next night's.
    """

    name: str
    number: int
    policy: str | None
    slice: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be written down about a candidate. See storage/schema.py."""

    action: Action
    # empty to roll back to the model that the line began with, or to keep the policy because none
    # was made
    candidate: str
    reason: str
    recipe: str | None = None
    run: str | None = None
    metrics: str | None = None
    figures: Figures | None = None


def line_of(lake: Lake, name: str) -> Line:
    """The line that began with the model of this digest."""
    with lake.cursor() as cursor:
        return _line(cursor, name)


def line_from(lake: Lake, policy: ModelRef) -> str:
    """The name of the line that a policy belongs to: the digest of the model that its ancestors
    began with.
    """
    seen: set[str] = set()
    while (row := lake.model(policy))["parent"] is not None:
        assert row["parent"] not in seen, "a model cannot be its own ancestor"
        seen.add(row["parent"])
        if lake.find(row["parent"]) is None:
            raise UserError(
                f"models@{row['parent']}, from which models@{policy.version} was made, is no "
                "longer in the lake."
            )
        policy = ModelRef("models", row["parent"], 1)
    return str(row["digest"])


def decide(lake: Lake, line: Line, decision: Decision) -> dict[str, Any]:
    """Write a decision down and return its row. A promotion comes after `line.policy`, or, where
    the line has gone on since, not at all:
    the row then says 'keep'. A run that has decided already is told what it decided.
    """

    def work(cursor: Connection) -> int:
        if decision.run is not None and (told := _number_of(cursor, decision.run)) is not None:
            return told
        now = _line(cursor, line.name)
        action, policy, reason, number = (
            decision.action,
            decision.candidate,
            decision.reason,
            _turn(cursor) + 1,
        )
        if action in ("promote", "promote by hand") and now.policy != line.policy:
            action, reason = (
                "keep",
                "meanwhile another policy was promoted, from which this one does not come",
            )
        if action == "keep":
            policy = now.policy
        policy = policy or None  # back at the model that the line began with
        figures = json.dumps(
            {name: list(figure) for name, figure in (decision.figures or {}).items()},
            sort_keys=True,
        )
        used = None if decision.run is None else line.slice
        cursor.execute("UPDATE promotion_turn SET number = ?", [number])
        made = (
            decision.candidate,
            now.policy,
            used,
            decision.recipe,
            decision.run,
            decision.metrics,
            figures,
            reason,
        )
        cursor.execute(
            f"INSERT INTO promotions VALUES ({', '.join('?' * 12)}, now())",
            [number, line.name, action, policy, *made],
        )
        return number

    number = lake.commit(
        work, f"{decision.action} models@{decision.candidate}", {"policy": decision.candidate}
    )
    row = _rows(lake, "number = ?", [number])[0]
    log(
        "policy.decided",
        **{
            name: row[name]
            for name in (
                "run",
                "line",
                "number",
                "action",
                "policy",
                "candidate",
                "slice",
                "reason",
            )
        },
    )
    return row


def decided_by(lake: Lake, run: str) -> dict[str, Any] | None:
    """What a run has decided; None where it has not got so far."""
    found = _rows(lake, "run = ?", [run])
    return found[0] if found else None


def promotions(lake: Lake, line: str | None = None) -> list[dict[str, Any]]:
    """All decisions, oldest first; `figures` as a dictionary."""
    return _rows(lake, "line = ?", [line]) if line else _rows(lake, "true", [])


def newest_line(lake: Lake) -> str:
    """The line of the newest decision. Raises UserError when there is none."""
    if not (rows := promotions(lake)):
        called = CALLED[PROMOTED]
        raise UserError(called.missing, called.remedy)
    return str(rows[-1]["line"])


def _line(cursor: Connection, name: str) -> Line:
    query = (
        "SELECT arg_max(coalesce(policy, ''), number), coalesce(max(number), 0), "
        "coalesce(max(slice), 0) FROM promotions WHERE line = ?"
    )
    row = cursor.execute(query, [name]).fetchone()
    assert row is not None
    policy, number, used = row
    return Line(name=name, number=number, policy=policy or None, slice=used + 1)


def _turn(cursor: Connection) -> int:
    row = cursor.execute("SELECT max(number) FROM promotion_turn").fetchone()
    assert row is not None
    return int(row[0])


def _number_of(cursor: Connection, run: str) -> int | None:
    row = cursor.execute("SELECT max(number) FROM promotions WHERE run = ?", [run]).fetchone()
    return None if row is None else row[0]


def _rows(lake: Lake, condition: str, parameters: list[Any]) -> list[dict[str, Any]]:
    rows = lake.rows(f"SELECT * FROM promotions WHERE {condition} ORDER BY number", parameters)
    return [row | {"figures": json.loads(row["figures"])} for row in rows]

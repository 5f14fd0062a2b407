"""Where a row, a dataset or a model came from, and what came of it: a walk along keys, never a scan
of the lake.

    node = trace(lake, "3f9c01")          # any id, or the beginning of one
A row's version is in its id, and a version's files are its own, so each step of the walk reads a
few row groups of one file.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dapflow.storage.catalogue import Catalogue, VersionInfo
from dapflow.storage.errors import LakeError
from dapflow.storage.lake import Lake

Row = dict[str, Any]

# (from, to): a row of `to` came of a row of `from` when one of these columns of it holds this
# column of the other
_DOWN: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("prompts", "prompts"): ("id", ("parents",)),
    ("prompts", "completions"): ("id", ("prompt_id",)),
    ("completions", "verdicts"): ("id", ("completion_id", "other_id")),
    ("completions", "acceptances"): ("id", ("completion_id",)),
    ("completions", "pairs"): ("id", ("chosen_id", "rejected_id")),
    ("verdicts", "acceptances"): ("completion_id", ("completion_id",)),
    ("acceptances", "pairs"): ("completion_id", ("chosen_id", "rejected_id")),
}
# columns of a noun that hold ids of what it came from
_UP: dict[str, tuple[str, ...]] = {
    "prompts": ("parents", "source"),
    "completions": ("prompt_id", "policy"),
    "verdicts": ("completion_id", "other_id", "judge"),
    "acceptances": ("completion_id",),
    "pairs": ("chosen_id", "rejected_id", "prompt_id", "source"),
    "metrics": ("subject",),
}
_WITNESSES = ("acceptances", "verdicts")  # what was said about a completion on its way into a pair


@dataclass
class Node:
    """A row, a dataset version or a model, with what it came from (`up`) and what came of it
    (`down`).
    """

    kind: str
    id: str
    facts: Row
    role: str = ""  # what it is to the node above it in the tree
    up: list["Node"] = field(default_factory=list)
    down: list["Node"] = field(default_factory=list)
    repeated: bool = False  # its own origins stand elsewhere in the tree

    def as_json(self) -> Row:
        """The tree as plain values."""
        sides = {
            name: [one.as_json() for one in nodes]
            for name, nodes in (("up", self.up), ("down", self.down))
            if nodes
        }
        return {
            "kind": self.kind,
            "id": self.id,
            "role": self.role,
            "repeated": self.repeated,
            "facts": self.facts,
            **sides,
        }


def trace(lake: Lake, text: str) -> Node:
    """The tree of what `text` names: up to prompts and seeds, down to models and metrics. Raises
    LakeError.
    """
    found, catalogue = lake.resolve(text), lake.catalogue()
    if catalogue.versions[version_of(found)].kind == "models":
        found = version_of(found)  # a model is its one row
    return (
        _Rows(lake, catalogue).tree(found)
        if "-" in found
        else _Versions(lake, catalogue).tree(found)
    )


class _Versions:
    """The walk from version to version: all of it in memory."""

    def __init__(self, lake: Lake, catalogue: Catalogue) -> None:
        self._lake = lake
        self._catalogue = catalogue

    def tree(self, version: str) -> Node:
        node = self.node(version, "")
        node.facts |= facts_of(self._lake, version)
        parents, children = self._catalogue.parents, self._catalogue.children
        node.up = self._side(version, "up", lambda one: parents.get(one, {}).items(), {version})
        node.down = self._side(
            version,
            "down",
            lambda one: [("made into", child) for child in children.get(one, ())],
            {version},
        )
        return node

    def node(self, version: str, role: str) -> Node:
        info = self._catalogue.versions.get(version)
        if info is None:
            return Node("unknown", version, {}, role)
        return Node(
            info.kind,
            version,
            {"step": info.step, "rows": info.rows, "seconds": info.seconds, "state": info.state},
            role,
        )

    def _side(
        self,
        version: str,
        side: str,
        step: Callable[[str], Iterable[tuple[str, str]]],
        seen: set[str],
    ) -> list[Node]:
        nodes = []
        for role, other in step(version):
            node = self.node(other, role)
            node.repeated = other in seen
            if not node.repeated:
                seen.add(other)
                setattr(node, side, self._side(other, side, step, seen))
            nodes.append(node)
        return nodes


class _Rows:
    """The walk from row to row. Rows of the same version are read together."""

    def __init__(self, lake: Lake, catalogue: Catalogue) -> None:
        self._lake = lake
        self._catalogue = catalogue
        self._versions = _Versions(lake, catalogue)
        self._rows: dict[str, Row] = {}
        self._seen: set[str] = set()

    def tree(self, row_id: str) -> Node:
        version = version_of(row_id)
        info = self._catalogue.versions[version]
        if info.state != "complete":
            raise LakeError(
                f"{info.kind}@{version} is {info.state}: only complete versions can be read."
            )
        self._fetch([row_id])
        if row_id not in self._rows:
            raise LakeError(f"{version} has {info.rows} rows, there is no {row_id}.")
        node = self._up(row_id, "", self._witnesses(row_id))
        self._seen = {row_id}
        node.down = self._down([row_id])
        return node

    def _up(
        self, some_id: str, role: str, said: dict[str, list[tuple[str, str]]], above: str = ""
    ) -> Node:
        if "-" not in some_id:
            return self._version(some_id, role)
        kind, row = self._kind(some_id), self._rows[some_id]
        node = Node(kind, some_id, row, role, repeated=some_id in self._seen)
        if node.repeated:
            return node
        self._seen.add(some_id)
        origins = [(name, one) for name in _UP.get(kind, ()) for one in _ids(row[name])]
        origins = [(name, one) for name, one in origins + said.get(some_id, []) if one != above]
        self._fetch([one for _, one in origins if "-" in one])
        for name, one in origins:
            if (
                one in self._rows or one in self._catalogue.versions
            ):  # else a judge that is a program, or a row that was dropped
                node.up.append(self._up(one, name.removesuffix("_id"), said, some_id))
        return node

    def _version(self, version: str, role: str) -> Node:
        node = self._versions.node(version, role)
        node.repeated = version in self._seen
        if not node.repeated and node.kind == "models":
            self._seen.add(version)
            node.facts |= next(
                iter(self._lake.pick(self._catalogue.files_of("models", version), "true")), {}
            )
        return node

    def _witnesses(self, row_id: str) -> dict[str, list[tuple[str, str]]]:
        """Per completion of a pair (or of an acceptance): the acceptances and verdicts that it got
        on the way.
        """
        kind, row = self._kind(row_id), self._rows[row_id]
        if kind not in ("pairs", "acceptances"):
            return {}
        completions = [
            one
            for name in _UP[kind]
            if name.endswith("_id") and name != "prompt_id"
            for one in _ids(row[name])
        ]
        said: dict[str, list[tuple[str, str]]] = {}
        for version in self._catalogue.sources(version_of(row_id)):
            info = self._catalogue.versions.get(version)
            if completions and info and info.kind in _WITNESSES:
                for found in self._pick(
                    info,
                    ("completion_id", "other_id")
                    if info.kind == "verdicts"
                    else ("completion_id",),
                    completions,
                ):
                    said.setdefault(found["completion_id"], []).append(
                        ("accepted" if info.kind == "acceptances" else "judged", found["id"])
                    )
        return said

    def _down(self, ids: Sequence[str]) -> list[Node]:
        """What came of rows of one version."""
        version = version_of(ids[0])
        nodes: list[Node] = []
        for child in self._nearest(self._catalogue.children.get(version, ())):
            info = self._catalogue.versions[child]
            relation = _DOWN.get((self._kind(ids[0]), info.kind))
            if info.state != "complete":
                continue
            if relation is not None:
                keys = [self._rows[one][relation[0]] for one in ids]
                for one in [found["id"] for found in self._pick(info, relation[1], keys)]:
                    node = Node(
                        info.kind, one, self._rows[one], info.step, repeated=one in self._seen
                    )
                    self._seen.add(one)
                    nodes.append(node)
                    if not node.repeated:
                        node.down = self._down([one])
            elif (
                info.kind == "models"
                and child not in self._seen
                and self._rows[ids[0]].get("dropped") is None
            ):
                nodes.append(self._trained(child))
        return nodes

    def _trained(self, model: str) -> Node:
        node = self._version(model, "trained on it")
        for child in self._catalogue.children.get(model, ()):
            if self._catalogue.versions[child].kind == "metrics":
                measured = self._lake.pick(
                    self._catalogue.files_of("metrics", child), "subject = ?", [model]
                )
                facts = {one["name"]: one["value"] for one in measured if one["step"] is None}
                node.down.append(Node("metrics", child, facts, "measured"))
        return node

    def _nearest(self, children: Sequence[str]) -> list[str]:
        """Children that were not made from another child as well: the way goes through that one."""
        return [one for one in children if not set(self._catalogue.sources(one)) & set(children)]

    def _pick(self, info: VersionInfo, columns: Sequence[str], values: Sequence[str]) -> list[Row]:
        marks = ", ".join("?" * len(values))
        tests = [
            f"list_has_any({one}, [{marks}])" if one == "parents" else f"{one} IN ({marks})"
            for one in columns
        ]
        found = self._lake.pick(
            self._catalogue.files_of(info.kind, info.version),
            " OR ".join(tests),
            [*values] * len(columns),
        )
        self._rows |= {row["id"]: row for row in found}
        return found

    def _fetch(self, ids: Iterable[str]) -> None:
        wanted: dict[str, list[str]] = {}
        for one in ids:
            if one not in self._rows:
                wanted.setdefault(version_of(one), []).append(one)
        for version, ones in wanted.items():
            if info := self._catalogue.versions.get(version):
                self._pick(info, ["id"], ones)

    def _kind(self, row_id: str) -> str:
        return self._catalogue.versions[version_of(row_id)].kind


def facts_of(lake: Lake, version: str) -> Row:
    """What `versions` knows about a version beyond its name: parameters, code version, Prefect run
    ids, times.
    """
    columns = "parameters, code, flow_run_id, task_run_id, opened_at, completed_at"
    found = lake.rows(f"SELECT {columns} FROM versions WHERE version = ?", [version])
    return found[0] if found else {}


def version_of(row_id: str) -> str:
    """The version that a row belongs to."""
    return row_id.partition("-")[0]


def _ids(value: Any) -> list[str]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]

"""References: what tasks hand to one another instead of rows, tensors or connections.

Plain classes on purpose: Prefect draws the edges of its run graph by the identity of a task's
result and, for pydantic models and dataclasses, also of their fields, so two of those that share a
field would get an edge that does not exist.
"""


class Ref:
    """A complete dataset version: which noun (`kind`), which `version`, how many `rows`, where each
    row id begins with the version.
    """

    __slots__ = ("__weakref__", "kind", "rows", "version")

    def __init__(self, kind: str, version: str, rows: int) -> None:
        self.kind = kind
        self.version = version
        self.rows = rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and (self.kind, self.version) == (other.kind, other.version)

    def __hash__(self) -> int:
        return hash((self.kind, self.version))

    def __str__(self) -> str:
        return self.version[:8]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind}@{self.version}, {self.rows} rows)"


class DatasetRef(Ref):
    """Rows of one noun: prompts, completions, verdicts, acceptances, pairs or metrics."""

    __slots__ = ()


class ModelRef(Ref):
    """A model version: a policy, a reference or a reward model. Its one row in `models` says where
    the weights are.
    """

    __slots__ = ()


def row_id(version: str, ordinal: int) -> str:
    """The deterministic id of a row: its version, then its place in it, so that sorting by id is
    sorting by both.
    """
    return f"{version}-{ordinal:08d}"


def ref_of(kind: str, version: str, rows: int) -> Ref:
    """The reference of a version of `kind`."""
    return (ModelRef if kind == "models" else DatasetRef)(kind, version, rows)

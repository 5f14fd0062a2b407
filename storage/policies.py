"""The policies that a person calls by what became of them, not by an id.

    with Lake("./lake") as lake: lake.ref(PROMOTED)
Test: pytest tests/storage/test_promotions.py
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dapflow.storage.errors import Remedy

PROMOTED = "promoted"
NEWEST = "newest"


@dataclass(frozen=True, kw_only=True)
class Called:
    """query: finds the policy's version; missing: what to say where there is none."""

    query: str
    missing: str
    remedy: Remedy


CALLED: Mapping[str, Called] = {
    PROMOTED: Called(
        query="SELECT policy FROM promotions WHERE action <> 'keep' ORDER BY number DESC LIMIT 1",
        missing="No policy has been promoted yet: promote one, or have a gate decide it.",
        remedy=Remedy.PROMOTE,
    ),
    NEWEST: Called(
        query="SELECT m.version AS policy"
        " FROM models m JOIN versions v ON v.version = m.version AND v.state = 'complete'"
        " WHERE m.role = 'policy' AND m.path IS NOT NULL ORDER BY v.completed_at DESC LIMIT 1",
        missing="The lake has no trained policy yet: name a model, or run a recipe, which trains one.",
        remedy=Remedy.RUN_RECIPE,
    ),
}

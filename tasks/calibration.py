"""How honest a reward model's probabilities are: of each pair that tests it, how sure it was of the
answer that people prefer.

    rows_about(pairs, probabilities)   ->  rows of `metrics`, a pair each, that the training of a reward model leaves behind
    reliability_of(lake, version)      ->  how often it is right, by how sure it is
Imports neither torch nor prefect. Test: pytest tests/tasks/test_calibration.py
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dapflow.storage import Lake
from dapflow.tasks.statistics import Confidence, reliability

_NAME = "probability_of_chosen"


def rows_about(
    pairs: Sequence[Mapping[str, Any]], probabilities: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """pairs: of the lake; probabilities: of each one's chosen answer. The rows' subject is the
    pair.
    """
    for pair, probability in zip(pairs, probabilities, strict=True):
        yield {"subject": pair["id"], "name": _NAME, "value": probability, "unit": "probability"}


def reliability_of(lake: Lake, version: str) -> list[Confidence]:
    """Of a model of the lake; empty where nothing of the kind was written down."""
    rows = lake.rows("SELECT value FROM metrics WHERE version = ? AND name = ?", [version, _NAME])
    return reliability([row["value"] for row in rows])

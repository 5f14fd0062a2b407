"""Random streams that depend on what a row is, never on time, process or batch order."""

import hashlib
import json
import random


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) from (recipe seed, iteration, row id, ...): equal parts give equal seeds
    everywhere.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> random.Random:
    """A random stream of its own for these parts."""
    return random.Random(derive_seed(*parts))

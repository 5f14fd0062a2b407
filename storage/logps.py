"""Log-probabilities that a model has given already: kept by content, found again by whatever run
needs the same.

A key is a digest of the token ids of a prompt and its answers, so neither a template nor a version
of a dataset plays a part.
"""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from dapflow.storage.database import Connection
from dapflow.storage.lake import Lake

Values = tuple[float, ...]


class KeptLogps:
    """log p(answer | prompt) under one model in one dtype: `model` is the digest of its weights,
    not a version.
    """

    def __init__(self, lake: Lake, model: str, dtype: str) -> None:
        self._lake = lake
        self._model = model
        self._dtype = dtype

    def find(self, keys: Iterable[str]) -> dict[str, Values]:
        """What is there already: per key one value an answer, in nats."""
        wanted = pa.table({"key": pa.array(sorted(set(keys)), pa.string())})
        query = (
            "SELECT key, list(logp ORDER BY answer) AS logps FROM (SELECT DISTINCT key, answer, "
            "logp FROM reference_logps"
            " WHERE model = ? AND dtype = ? AND key IN (SELECT key FROM wanted)) GROUP BY key"
        )
        with self._lake.cursor() as cursor:
            cursor.register("wanted", wanted)
            try:
                return {
                    key: tuple(logps)
                    for key, logps in cursor.execute(query, [self._model, self._dtype]).fetchall()
                }
            finally:
                cursor.unregister("wanted")

    def keep(self, values: Mapping[str, Sequence[float]]) -> None:
        """Write down what has been computed, in one transaction. Two runs that compute the same at
        once find the same numbers.
        """
        rows = [
            (key, answer, logp)
            for key, logps in values.items()
            for answer, logp in enumerate(logps)
        ]
        if not rows:
            return
        keys, answers, logps = zip(*rows, strict=True)
        new = pa.table(
            {
                "model": [self._model] * len(rows),
                "dtype": [self._dtype] * len(rows),
                "key": keys,
                "answer": pa.array(answers, pa.int32()),
                "logp": pa.array(logps, pa.float64()),
            }
        )

        def work(cursor: Connection) -> None:
            cursor.register("new_logps", new)
            cursor.execute("INSERT INTO reference_logps SELECT * FROM new_logps")
            cursor.unregister("new_logps")

        self._lake.commit(work, f"{len(values)} reference log-probabilities")

"""What happens, as structured log records: one JSON object a line, with the ids of run, step and
version.

    log("step.done", run=..., step="sample", version=..., rows=384, seconds=31.2)
DAPFLOW_LOG=stderr, or a file that is appended to, by several processes too. The records go to the
logger `dapflow`, so that a program around it can have them without. Test: pytest
tests/storage/test_logs.py
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dapflow.storage.errors import UserError

VARIABLE = "DAPFLOW_LOG"
_LOGGER = logging.getLogger("dapflow")
_WARNINGS = ("failed", "said")  # what an event ends in that somebody should read


def log(event: str, **fields: Any) -> None:
    """Log an event; fields that are None are left out. Raises UserError when the file that
    DAPFLOW_LOG names cannot be written.
    """
    _set_up(os.environ.get(VARIABLE))
    level = logging.WARNING if event.endswith(_WARNINGS) else logging.INFO
    known = {name: value for name, value in fields.items() if value is not None}
    _LOGGER.log(level, "%s", event, extra={"dapflow": known})


@cache
def _set_up(where: str | None) -> None:
    for handler in [one for one in _LOGGER.handlers if isinstance(one.formatter, _Json)]:
        _LOGGER.removeHandler(handler)
        handler.close()
    _LOGGER.propagate = True
    if not where:
        return
    try:
        handler = (
            logging.StreamHandler(sys.stderr)
            if where == "stderr"
            else logging.FileHandler(where, encoding="utf-8")
        )
    except OSError as error:
        raise UserError(
            f"{VARIABLE}={where}: {error.strerror}. It is `stderr`, or a file that can be written."
        ) from error
    handler.setFormatter(_Json())
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


class _Json(logging.Formatter):
    """Time, level and event first, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": at,
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "process": os.getpid(),
        }
        return json.dumps(
            line | record.__dict__.get("dapflow", {}), ensure_ascii=False, default=str
        )

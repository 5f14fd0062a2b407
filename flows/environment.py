"""Settings of Prefect and of the libraries that must stand before they are imported: offline, quiet, and nothing outside the lake.

Whatever the user has set in the environment stays.
"""

import os
from pathlib import Path

from platformdirs import user_cache_path

from storage import Lake

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal shows bars; the UI keeps the log
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare(lake: Path | None) -> None:
    """Set what is not set. A lake keeps the history of its runs beside its data, unless PREFECT_API_URL names a server.

    None: for what runs nothing. Raises LakeError when the lake cannot be written.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if lake is not None:
        Lake(lake).close()
    home = user_cache_path("dapflow") / "prefect" if lake is None else lake.absolute() / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))

"""Settings of Prefect and of the libraries that must stand before they are imported: offline,
quiet, and nothing outside the lake.

Whatever the user has set in the environment stays.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_cache_path

from dapflow.storage import Lake
from dapflow.storage.location import locate
from dapflow.storage.processors import processors
from dapflow.tasks.servers.supervise import SAFE_PATH

UI_PASSWORD = "DAPFLOW_UI_PASSWORD"
"""What `dapflow ui` asks for, and the other commands show it: a password, for the user `dapflow`,
or user:password.
"""
ALLOW = "DAPFLOW_ALLOW_COMMANDS"
"""1: runs may execute what only their parameters name (flows/server/permissions.py)."""
_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # the terminal shows bars; the UI keeps the log
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",  # the bars are ours
    # of the processes started from here: a file called secrets.py where the user stands is not
    # Python's
    "PYTHONSAFEPATH": SAFE_PATH,
}
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND", "OMP_PLACES")
# tests/benchmarks/speed/beside.py has the table; libgomp's own keeps processors busy that others
# could use
_SPINS = "3000"


def set_defaults() -> None:
    """Set what is not set, in the environment alone."""
    for name, value in (_DEFAULTS | thread_defaults(os.environ)).items():
        os.environ.setdefault(name, value)


def prepare(lake: str | None) -> None:
    """Set what is not set. A lake keeps the history of its runs beside its data, unless
    PREFECT_API_URL names a server: of 90 days, as Prefect's own setting says
    (PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD).

    None: for what runs nothing. Raises LakeError when the lake cannot be written.
    """
    set_defaults()
    server_password()
    if lake is not None:
        Lake(lake).close()
    if "PREFECT_HOME" not in os.environ:  # a history that is the lake's alone
        os.environ.setdefault("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", "true")
    beside = user_cache_path("dapflow") if lake is None else locate(lake).root
    home = Path(os.environ.setdefault("PREFECT_HOME", str(beside / "prefect")))
    home.mkdir(parents=True, exist_ok=True)


def thread_defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """Threads of OpenMP, which reads this when torch is loaded, and of tokenizers: no more than
    there are processors, and such as wait asleep for one another where something else is running.
    Left out where `environment` says how they are to wait."""
    count = processors()
    spins = {} if any(name in environment for name in _WAITING) else {"GOMP_SPINCOUNT": _SPINS}
    fewer = (
        {"OMP_NUM_THREADS": str(count)} if count < (os.cpu_count() or 1) else {}
    )  # OpenMP knows of no quota
    return {**spins, **fewer, "RAYON_NUM_THREADS": str(count)}


def server_password() -> str | None:
    """`user:password` that Prefect's server asks for, if any: DAPFLOW_UI_PASSWORD becomes Prefect's
    own settings, of server and clients.
    """
    if password := os.environ.get(UI_PASSWORD):
        for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"):
            os.environ.setdefault(name, password if ":" in password else f"dapflow:{password}")
    return os.environ.get("PREFECT_SERVER_API_AUTH_STRING")


def of_server(error: BaseException) -> str | None:
    """What to tell the user when the Prefect server that PREFECT_API_URL names is why something
    failed; None when it is not.
    """
    from httpx import ConnectError, HTTPStatusError

    url = os.environ.get("PREFECT_API_URL", "no address")
    of_ours = isinstance(error, ConnectError | HTTPStatusError) and str(
        error.request.url
    ).startswith(url)
    if isinstance(error, HTTPStatusError) and of_ours and error.response.status_code == 403:
        return refused(url, error.response.text)
    if isinstance(error, HTTPStatusError) and of_ours and error.response.status_code == 401:
        return (
            f"The Prefect server at {url} does not let us in: set "
            "PREFECT_API_AUTH_STRING=user:password, as it asks for."
        )
    if (isinstance(error, ConnectError) and of_ours) or str(error).startswith(
        "Failed to reach API at"
    ):
        return (
            f"No Prefect server answers at {url}: start it, or unset PREFECT_API_URL. Nothing is "
            "lost: the same command goes on from here."
        )
    return None


def refused(url: str, text: str) -> str:
    """What to tell the user when a server refuses all that is asked by this address: the door says
    why, in a sentence.
    """
    return f"The Prefect server at {url} refuses: {text.strip()[:300]}"

"""A run of a Prefect deployment that has to wait for a person gives its machine back: it is
suspended, and begun again when it is resumed.

What it has done by then is in the lake, so beginning again costs seconds.
"""

from typing import NoReturn
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import NotPausedError, ObjectNotFound, Pause
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.runtime import flow_run

_DAYS = 90


def suspend(missing: int) -> NoReturn:
    """Suspend the run that is going on, from inside a step: the process ends, and whoever resumes
    the run has it begin again.
    """
    create_markdown_artifact(
        key="labels-wanted",
        markdown=(
            f"{missing} pairs of answers wait for a person: `dapflow label` on the lake of this "
            "run, which then goes on by itself."
        ),
    )
    suspend_flow_run(flow_run_id=UUID(flow_run.root_flow_run_id), timeout=_DAYS * 24 * 3600)
    raise Pause


def resume(run: str) -> bool:
    """Let a suspended run go on. False where the server in PREFECT_API_URL has no such run, or it
    is not suspended.
    """
    try:
        resume_flow_run(UUID(run))
    except (NotPausedError, ObjectNotFound):
        return False
    return True

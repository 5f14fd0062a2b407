"""What a step shows on its page in the Prefect UI: where its rows came from, a few of them, and how
far it is while it runs.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.context import TaskRunContext
from prefect.runtime import flow_run

from dapflow.storage import Lake, Ref
from dapflow.storage.refs import row_id
from dapflow.tasks.markdown import Markdown, as_quotation, as_table, as_text
from dapflow.tasks.pictures import calibration, training_curves

_SECONDS_BETWEEN_UPDATES = 5.0
_SHOWN_ROWS = 5
_SHOWN_COLUMNS = {
    "prompts": ("prompt", "split", "source"),
    "completions": ("prompt_id", "text", "finish_reason"),
    "verdicts": ("completion_id", "outcome", "score", "note"),
    "acceptances": ("completion_id", "reward", "accepted", "note"),
    "pairs": ("prompt", "chosen", "rejected", "margin", "probability", "source", "dropped"),
    "models": ("name", "role", "parent", "digest"),
    "metrics": ("name", "value", "low", "high", "unit"),
}


class ProgressArtifact:
    """A progress bar in the run's graph, created once a step has taken some seconds and updated
    every few.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._id: Any = None
        self._updated = time.monotonic()

    def update(self, share: float, note: str = "") -> None:
        """Show `share` (0 to 1) of the step as done, and how it is going."""
        late = time.monotonic() - self._updated >= _SECONDS_BETWEEN_UPDATES
        if TaskRunContext.get() is None or not (late or (share >= 1.0 and self._id)):
            return
        self._updated = time.monotonic()
        if self._id is None:
            self._id = create_progress_artifact(
                progress=100.0 * share, description=self._told(note)
            )
        else:
            update_progress_artifact(self._id, progress=100.0 * share, description=self._told(note))

    def _told(self, note: str) -> str:
        return as_text(f"{self._description}: {note}" if note else self._description)


def publish_artifacts(
    lake: Lake,
    ref: Ref,
    step: str,
    code: str,
    parameters: Mapping[str, Any],
    parents: Mapping[str, str],
) -> None:
    """Put the version's card on the task run: its curves, its first rows, id, parents, parameters
    and code version.
    """
    if TaskRunContext.get() is None:
        return
    facts = [
        ("version", f"{ref.kind}@{ref.version}"),
        ("rows", f"{ref.rows:,}"),
        *((f"from {role}", version) for role, version in parents.items()),
        *((name, str(value)) for name, value in _flat(parameters)),
        ("code version", code),
        (
            "lineage",
            Markdown(
                f"[where it came from and what it led to](/lineage/{ref.version}), once the "
                "iteration has ended"
            ),
        ),
        ("flow run", flow_run.name),
    ]
    columns = _SHOWN_COLUMNS[ref.kind]
    files = [file for file in lake.files_of(ref.version) if file.table == ref.kind]
    rows = [
        [row[column] for column in columns]
        for row in lake.pick(files, "id < ?", [row_id(ref.version, _SHOWN_ROWS)])
    ]
    drawn = (
        [training_curves(lake, ref.version), calibration(lake, ref.version)]
        if ref.kind == "models"
        else []
    )
    shown = (
        "\n\n".join(pair_as_markdown(*row) for row in rows)
        if ref.kind == "pairs"
        else as_table(columns, rows)
    )
    markdown = f"{''.join(drawn)}\n\n{shown}\n\n{as_table(('', ''), facts)}"
    create_markdown_artifact(
        key=step.replace("_", "-"), markdown=markdown, description=f"{ref.kind}@{ref.version}"
    )


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names, as `--set` takes them."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def pair_as_markdown(
    prompt: str | None,
    chosen: str | None,
    rejected: str | None,
    margin: float | None,
    probability: float | None,
    source: str | None,
    dropped: str | None,
) -> str:
    """A pair as one reads it, its answers one below the other: in a table a long prompt would push
    them out of sight.
    """
    found = [] if margin is None else [f"margin {margin:.3g}"]
    found += [] if probability is None else [f"better with probability {probability:.2f}"]
    why = [as_text(source)] if source else []
    why += [f"left out: {as_text(dropped)}"] if dropped else found
    texts = (
        ("prompt", prompt),
        (f"chosen ({', '.join(why)})" if why else "chosen", chosen),
        ("rejected", rejected),
    )
    return (
        "\n\n".join(f"**{name}**\n\n{as_quotation(said or '')}" for name, said in texts) + "\n\n---"
    )

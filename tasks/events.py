"""What a run tells Prefect's automations, which notify people (`dapflow deploy --notify`):
`dapflow.gate.closed`, `dapflow.budget.reached`.
"""

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

GATE_CLOSED = "dapflow.gate.closed"
BUDGET_REACHED = "dapflow.budget.reached"


def tell(event: str, subject: str, sentence: str) -> None:
    """Emit an event about a version of the lake; Prefect adds the flow run, its deployment and its
    worker. Outside a run nobody listens.

    sentence: what a person reads.
    """
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    emit_event(
        event,
        {"prefect.resource.id": f"dapflow.version.{subject}", "prefect.resource.name": subject},
        payload={"message": sentence},
    )

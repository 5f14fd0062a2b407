"""What a Prefect server does by itself for the nights: runs without a heartbeat become Crashed, and
people are told what went wrong.
"""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from dapflow.storage.errors import UserError
from dapflow.tasks.events import BUDGET_REACHED, GATE_CLOSED

_BLOCK = "dapflow-notify"
_OURS = {"prefect.resource.role": "flow", "prefect.resource.name": ["night", "align"]}
_RUN = "{{ flow_run.name }} ({{ flow_run|ui_url }})"


def set_up(client: SyncPrefectClient, notify: str | None, dead_after: int) -> list[str]:
    """Make the automations, or change those that are there. Returns a sentence about each.
    dead_after: seconds.
    """
    wanted = [_heartbeat(dead_after)]
    if notify is not None:
        block = _block(notify)
        wanted += [_notification(block, *one) for one in _NEWS]
    for one in wanted:
        found: list[Automation] = client.read_automations_by_name(one.name)
        if found:
            client.update_automation(found[0].id, one)
        else:
            client.create_automation(one)
    return [f"automation: {one.name}" for one in wanted]


def _heartbeat(dead_after: int) -> AutomationCore:
    # Any event of the run is a sign of life: its last one, whatever the final state is called, ends
    # the watch.
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=dead_after),
    )
    message = (
        f"No sign of life for {dead_after} seconds. The next run goes on from what is in the lake."
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED, name="Crashed", message=message, force=False
    )
    return AutomationCore(
        name="dapflow: no heartbeat",
        description="A run whose process is gone gives back its slot.",
        trigger=trigger,
        actions=[action],
    )


_NEWS: tuple[tuple[str, set[str], dict[str, Any], str, str], ...] = (
    (
        "failure",
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        _OURS,
        "dapflow: {{ flow_run.name }} {{ flow_run.state.name }}",
        f"{_RUN}: {{{{ flow_run.state.message }}}}\n`dapflow resume`, Retry in the UI or simply "
        "the next night goes on from the lake.",
    ),
    (
        "gate closed",
        {GATE_CLOSED},
        {},
        "dapflow: a policy was not promoted",
        f"{{{{ event.payload.message }}}}\n{_RUN}",
    ),
    (
        "budget reached",
        {BUDGET_REACHED},
        {},
        "dapflow: a judge's budget is spent",
        f"{{{{ event.payload.message }}}}\n{_RUN}",
    ),
)


def _notification(
    block: Any, name: str, events: set[str], related: dict[str, Any], subject: str, body: str
) -> AutomationCore:
    trigger = EventTrigger(
        expect=events, match_related=related, posture=Posture.Reactive, threshold=1
    )  # type: ignore[arg-type]
    action = SendNotification(block_document_id=block, subject=subject, body=body)
    return AutomationCore(
        name=f"dapflow: {name}",
        description="Set up by dapflow deploy --notify.",
        trigger=trigger,
        actions=[action],
    )


def _block(notify: str) -> Any:
    """The id of the notification block: one of the server's, by TYPE/NAME, or one for a URL, which
    the server keeps encrypted.
    """
    from prefect.blocks.core import Block
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook

    if not notify.startswith(("http://", "https://")):
        try:
            block: Any = Block.load(notify)
        except (ValueError, ObjectNotFound) as error:
            raise UserError(
                f"The server has no block {notify}: write TYPE/NAME, such as slack-webhook/team, "
                "or give the URL of a webhook."
            ) from error
        return block._block_document_id
    if urlsplit(notify).hostname == "hooks.slack.com":
        block = SlackWebhook(url=notify)  # type: ignore[arg-type]
    else:
        said = {"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"}
        block = CustomWebhookNotificationBlock(
            name="dapflow", url="{{url}}", json_data=said, secrets={"url": notify}
        )  # type: ignore[arg-type]
    return block.save(_BLOCK, overwrite=True)

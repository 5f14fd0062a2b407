"""The flow of a run that a worker has started, as Prefect loads it: of a deployment that was looked
at, and not of what it became since.

Whoever reaches the server can change a deployment at any time. Its steps and its entry point are
executed by the process of the run, and by the worker when a run has crashed, each of which asks the
server for them anew. Test: pytest tests/flows/server/test_loading.py
"""

from typing import Any

from prefect import flows
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

from dapflow.flows.server.deployed import refuse, start_of, unusual
from dapflow.flows.server.permissions import is_allowed

_load: Any = flows.load_flow_from_flow_run  # in a wrapper that finds a client by itself


async def load(flow_run: FlowRun, **options: Any) -> flows.Flow[..., Any]:
    """In Prefect's place. Raises UserError for a deployment that would execute anything but one of
    our flows.
    """
    assert flow_run.deployment_id is not None, "a worker takes no others"
    async with get_client() as client:
        deployment = await client.read_deployment(flow_run.deployment_id)
        refuse(None if is_allowed(start_of(deployment)) else unusual(deployment))
        return await _load.__wrapped__(_Reader(client, deployment), flow_run, **options)


class _Reader:
    """A client to which the deployment is what it was when it was looked at."""

    def __init__(self, client: PrefectClient, deployment: Any) -> None:
        self._deployment = deployment
        self.read_block_document = client.read_block_document

    async def read_deployment(self, _: Any) -> Any:
        """The one that was looked at."""
        return self._deployment

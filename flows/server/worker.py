"""`prefect worker ...`, with a process worker that does not undo a Retry, starts nothing but our
flows, and whose runs import nothing from the folder that they work in: what `dapflow worker`
becomes.

Prefect's says of a process that was killed that its run has crashed, then looks for hooks of the
flow (it imports all of it: ten seconds), and says it again. Whoever has pressed Retry, or typed
`dapflow resume`, meanwhile had it undone. It also puts the folder of the deployment first on the
path of each run: a file called secrets.py there would be executed. Test: make test-nights
"""

import asyncio
import importlib
import shlex
import sys
import warnings
from typing import Any

import httpx
from prefect.cli import app
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.workers import process
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from dapflow.flows.server.deployed import changed, of_job, refuse, start_of, unusual
from dapflow.flows.server.loading import load
from dapflow.flows.server.permissions import is_allowed


async def _load_ours_first(flow_run: FlowRun) -> Flow[..., Any]:
    """The flow of a run that has crashed, for its hooks: loaded in this process, so nothing may
    come from the folder that it worked in.
    """
    await asyncio.to_thread(importlib.import_module, "dapflow.flows.night")
    return await load(flow_run)


process.load_flow_from_flow_run = _load_ours_first  # pyright: ignore[reportPrivateImportUsage]


class Configuration(ProcessJobConfiguration):
    """How a run's process is started: a command that is named is what Prefect leaves the path of
    alone.
    """

    def prepare_for_flow_run(self, *arguments: Any, **more: Any) -> None:
        self.command = self.command or shlex.join(
            [sys.executable, "-P", "-m", "dapflow.flows.server.preload", "prefect.engine"]
        )
        super().prepare_for_flow_run(*arguments, **more)


with warnings.catch_warnings(action="ignore"):  # that it takes the place of Prefect's

    class Worker(ProcessWorker):
        """For pools of type process; those of other types have their own."""

        job_configuration = Configuration

        async def run(
            self, flow_run: FlowRun, configuration: ProcessJobConfiguration, task_status: Any = None
        ) -> ProcessWorkerResult:
            """Raises UserError, which becomes the run's state, for a run that would start anything
            but one of our flows.
            """
            assert flow_run.deployment_id is not None, "a worker takes no others"
            deployment = await self.client.read_deployment(flow_run.deployment_id)
            flow = await self.client.read_flow(flow_run.flow_id)
            made_here = is_allowed(start_of(deployment))
            plain = Configuration(**of_job(deployment) if made_here else {})
            plain.prepare_for_flow_run(
                flow_run, deployment, flow, self.work_pool, self.name, self.backend_id
            )
            refuse((None if made_here else unusual(deployment)) or changed(configuration, plain))
            return await super().run(flow_run, configuration, task_status)

        async def _propose_crashed_state(
            self, flow_run: FlowRun, message: str, client: Any = None
        ) -> None:
            if await self._at_it(flow_run):
                await super()._propose_crashed_state(flow_run, message, client)

        async def _at_it(self, taken_up: FlowRun) -> bool:
            """Whether the server believes that the attempt which began with `taken_up` goes on."""
            try:
                now = await self.client.read_flow_run(taken_up.id)
            except (httpx.HTTPError, ObjectNotFound):
                return True
            begun = now.run_count - taken_up.run_count
            return now.state is not None and (
                (now.state.is_pending() and begun == 0) or (now.state.is_running() and begun == 1)
            )


if __name__ == "__main__":
    app()

"""`python -P -m dapflow.flows.server.preload MODULE ...`: a module of Prefect's as `python -m` runs
it, with our flows imported before.

When Prefect loads a flow it puts the working directory first on the path: what is not imported by
then would come from a folder of the user's that is called flows, tasks or like a module of
Python's. Of a deployment it loads what flows/server/loading.py lets it. Test: pytest
tests/flows/server/test_loading.py; pytest -m nights tests/flows/server/test_shadows.py
"""

import runpy
import sys

import prefect.flows

import dapflow.flows.night  # noqa: F401
from dapflow.flows.server.loading import load


def main() -> None:
    """Run the module that the first argument names, with the others."""
    prefect.flows.load_flow_from_flow_run = (
        load  # before Prefect's engine is imported, which takes it from there
    )
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

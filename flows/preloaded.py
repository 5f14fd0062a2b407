"""`python -P -m flows.preloaded MODULE ...`: a module of Prefect's as `python -m` runs it, with our flows imported before.

When Prefect loads a flow it puts the working directory first on the path: what is not imported by then would come from a folder of the user's
that is called flows, tasks or like a module of Python's. Of a deployment it loads what flows/loaded.py lets it.
Test: pytest tests/flows/test_loaded.py; pytest -m nights tests/flows/test_shadows.py
"""

import runpy
import sys

import prefect.flows

import flows.night  # noqa: F401
from flows.loaded import load


def main() -> None:
    """Run the module that the first argument names, with the others."""
    prefect.flows.load_flow_from_flow_run = load  # before Prefect's engine is imported, which takes it from there
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

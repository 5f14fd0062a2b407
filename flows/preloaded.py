"""`python -P -m flows.preloaded MODULE ...`: a module of Prefect's as `python -m` runs it, with our flows imported before.

When Prefect loads a flow it puts the working directory first on the path: what is not imported by then would come from a folder of the user's
that is called flows, tasks or like a module of Python's. Test: pytest -m nights tests/flows/test_shadows.py
"""

import runpy
import sys

import flows.night  # noqa: F401


def main() -> None:
    """Run the module that the first argument names, with the others."""
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

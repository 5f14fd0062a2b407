"""Modules that the user names as `package.module`: of what is installed, or of the folder that they
stand in.

Our processes keep that folder off their path, so that nothing there is imported unasked. Test:
pytest tests/tasks/judging/judges/test_program.py
"""

import os
import sys
from importlib import import_module
from types import ModuleType


def module_named(name: str) -> ModuleType:
    """The module of that name; what is installed comes first. Raises whatever importing it raises."""
    folder = os.getcwd()
    if folder in sys.path:
        return import_module(name)
    sys.path.append(folder)
    try:
        return import_module(name)
    finally:
        sys.path.remove(folder)

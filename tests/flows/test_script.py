"""`import dapflow` in a script of the user's, from a folder whose own `tasks` and `flows` are
theirs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.toy import BY_LENGTH, words

_SCRIPT = """
import json, sys, time
before = time.monotonic()
import dapflow
assert not {"torch", "prefect", "duckdb"} & set(sys.modules)
import tasks
assert tasks.MINE
try:
    dapflow.run("nonsense", lake="lake")
except dapflow.UserError as error:
    refused = str(error)
print(json.dumps(refused))
"""
_RUN = """
result = dapflow.run("rso", toy=True, settings=SETTINGS, lake="lake")
with dapflow.Lake("lake") as lake:
    figures = lake.rows("SELECT count(*) AS n FROM metrics")[0]["n"]
print(json.dumps({"iterations": len(result["iterations"]), "figures": figures}))
"""


def test_a_script_beside_modules_of_the_same_names_is_told_what_it_can_put_right(
    tmp_path: Path,
) -> None:
    [refused] = printed(_SCRIPT, tmp_path)
    assert refused.startswith("There is no recipe `nonsense`")


@pytest.mark.slow
def test_a_script_runs_a_recipe_and_reads_its_lake(tmp_path: Path) -> None:
    settings = [word for word in words(*BY_LENGTH) if word != "--set"]
    _, result = printed(_SCRIPT + _RUN.replace("SETTINGS", repr(settings)), tmp_path)
    assert result["iterations"] == 1
    assert result["figures"] > 10


def printed(script: str, tmp_path: Path) -> list[Any]:
    """What a script prints as JSON, line by line, in a folder with a `tasks` of its own."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("MINE = True\n")
    (tmp_path / "script.py").write_text(script)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in ("{", '"')]

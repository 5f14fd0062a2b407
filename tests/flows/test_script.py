"""`import dapflow` in a script of the user's, from a folder whose own `tasks` and `flows` are
theirs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

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
result = dapflow.run("rso", toy=True, settings=SETTINGS, lake="lake")
with dapflow.Lake("lake") as lake:
    figures = lake.rows("SELECT count(*) AS n FROM metrics")[0]["n"]
print(json.dumps({"refused": refused, "iterations": len(result["iterations"]), "figures": figures}))
"""


def test_a_script_runs_a_recipe_and_reads_its_lake(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("MINE = True\n")
    settings = [word for word in words(*BY_LENGTH) if word != "--set"]
    (tmp_path / "script.py").write_text(_SCRIPT.replace("SETTINGS", repr(settings)))
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
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["iterations"] == 1
    assert said["figures"] > 10
    assert said["refused"].startswith("There is no recipe `nonsense`")

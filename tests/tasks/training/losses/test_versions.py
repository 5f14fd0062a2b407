"""A loss is part of the version of the trainings that name it, and of no other: in a copy of the
project one is added and others are changed, and the plans of all recipes are compared.

Run: pytest tests/tasks/training/losses/test_versions.py
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from dapflow.tasks.training.losses.registry import losses
from tests.helpers import ROOT

pytestmark = pytest.mark.slow  # the plans of all recipes, six times

ADDED = """
from torch import Tensor
from torch.nn.functional import logsigmoid
from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Positive
from dapflow.tasks.training.losses.registry import loss

@loss(needs_reference=False, source="a test of the versions of losses, arXiv 0000.00000")
def added(logps: Logps, *, beta: Positive = 2.0, gamma: float = 0.5) -> Tensor:
    mean = logps.policy / logps.length
    return -logsigmoid(beta * (mean[:, 0] - mean[:, 1]) - gamma)
"""
CHANGES = {
    "a new loss": ("pairs/added.py", "", ADDED),
    "dpo": ("pairs/sigmoid_norm.py", "beta * logps.delta", "logps.delta * beta"),
    "advantages": ("policy_gradient.py", "running = delta", "running = 1.0 * delta"),
    "alternatives": ("cringe.py", "k + 1", "1 + k"),
    "likelihood": ("answers/nll.py", "return -logps", "return -1.0 * logps"),
}
PLANS = """
import importlib, json, pathlib, sys
from dapflow.flows.align import chain, chosen
from dapflow.flows.iteration import iterate
from dapflow.flows.recipes.methods import RECIPES
from dapflow.tasks.step import planning
from dapflow.tasks.step import code_version as versions
from dapflow.tasks.training.losses.registry import losses

def plans():
    importlib.invalidate_caches()
    for cached in (losses, versions.code_version, versions._imports, versions._tree_digest):
        cached.cache_clear()
    calls = {}
    for name in RECIPES:
        with planning() as of_recipe:
            list(chain(chosen(name, [], toy=True), 2, iterate.fn))
        calls |= {call.version: call for call in of_recipe}
    return [
        {
            "version": call.version,
            "parents": list(call.parents.values()),
            "loss": call.arguments["loss"].name if "loss" in call.arguments else None,
        }
        for call in calls.values()
    ]

folder, made, states = pathlib.Path(sys.argv[1]), list(losses()), [plans()]
for file, old, new in json.loads(sys.argv[2]):
    edited = folder / file
    edited.write_text(edited.read_text().replace(old, new) if old else new)
    states.append(plans())
print(json.dumps({"states": states, "new losses": [name for name in losses() if name not in made]}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the project plans, all recipes together, at first and after each change."""
    package = tmp_path_factory.mktemp("copy") / "dapflow"
    shutil.copytree(ROOT / "flows" / "dapflow", package)
    for folder in ("deployments", "flows", "storage", "tasks"):
        shutil.copytree(ROOT / folder, package / folder)
    command = [sys.executable, "-W", "ignore", "-c", PLANS]
    command += [str(package / "tasks" / "training" / "losses"), json.dumps(list(CHANGES.values()))]
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        command, cwd=package.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def losses_of_new_versions(copy: dict[str, Any], change: str) -> set[str]:
    """The losses of the trainings whose versions a change alone made new: of the steps whose
    parents kept theirs."""
    place = list(CHANGES).index(change)
    before, after = copy["states"][place : place + 2]
    known = {call["version"] for call in before}
    first = [
        call for call in after if call["version"] not in known and known.issuperset(call["parents"])
    ]
    assert all(call["loss"] for call in first)  # of no step that trains without a recipe's loss
    return {call["loss"] for call in first}


def test_a_new_loss_changes_no_version_of_any_recipe(copy: dict[str, Any]) -> None:
    assert copy["new losses"] == ["added"]
    assert copy["states"][0] == copy["states"][1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("dpo", {"sigmoid_norm"}),
        ("advantages", {"ppo"}),
        ("alternatives", {"pairwise_cringe"}),
        ("likelihood", {"nll", "click"}),  # CLICK adds a hinge to it
    ],
)
def test_a_changed_loss_changes_the_trainings_that_name_it_and_nothing_else(
    copy: dict[str, Any], change: str, named: set[str]
) -> None:
    assert losses_of_new_versions(copy, change) == named


def test_the_recipes_name_the_losses_that_are_changed_here(copy: dict[str, Any]) -> None:
    named = {call["loss"] for call in copy["states"][0]} - {None}
    assert {"sigmoid_norm", "ppo", "pairwise_cringe", "nll", "click"} < named < set(losses())

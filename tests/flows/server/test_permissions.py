"""What a run executes must have been given on this machine: its parameters alone, which whoever
reaches the server can write, are not enough.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dapflow.flows.align import chosen
from dapflow.flows.server.deployed import changed, of_job, start_of, unusual
from dapflow.flows.server.environment import ALLOW
from dapflow.flows.server.permissions import is_allowed, remember
from dapflow.flows.server.recipe_code import executed_by
from dapflow.storage import UserError
from dapflow.tasks.judging.functions import PROGRAMS
from dapflow.tasks.judging.kinds import spec_of

SERVE = ["sampler.engine=openai", "sampler.endpoint.model=m", "sampler.serve=touch MARK {port}"]


@pytest.fixture(autouse=True)
def _nothing_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPFLOW_ALLOWED", str(tmp_path / "data" / "allowed.txt"))
    monkeypatch.delenv(ALLOW, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "open('ran', 'w').close()\ndef short(prompt, completion): return -len(completion)\n"
    )
    (tmp_path / "more").mkdir()
    recipe = "open('ran', 'w').close()\nfrom dapflow.flows.recipes.methods import RSO\nRECIPE = RSO.model_copy(update={'name': 'own'})\n"
    (tmp_path / "recipe.py").write_text(recipe)


WAYS: list[tuple[str, list[str], str]] = [
    ("rso", SERVE, "sampler.serve"),
    ("rso", ["judge=./mine.py:short"], "judge"),
    ("rso", ["judge=antigravity:geohash"], "judge"),
    ("rso", ["evaluation.judge=./mine.py:short"], "evaluation.judge"),
    ("rso", ["judge=policy", "judge.fallback=./mine.py:short"], "judge.fallback"),
    (
        "rso",
        ["judge={kind: composite, members: {a: shorter, b: ./mine.py:short}}"],
        "judge.members.b",
    ),
    (
        "rso",
        ["judge=composite", "judge.members.a=shorter", "judge.members.b=./mine.py:short"],
        "judge.members.b",
    ),
    (
        "rso",
        ["evaluation.judge={kind: composite, members: {a: shorter, b: ./mine.py:short}}"],
        "evaluation.judge.members.b",
    ),
    ("rso", ["then={iteration: 2, changes: {judge: './mine.py:short'}}"], "judge"),
    (
        "rso",
        [
            "then={iteration: 2, changes: {then: {iteration: 3, changes: {judge: './mine.py:short'}}}}"
        ],
        "judge",
    ),
    ("rso", ["evaluation.harness.include=./more"], "evaluation.harness.include"),
    ("rso", ["shards.runner=dask", "shards.address=tcp://192.0.2.1:8786"], "shards.address"),
    ("./recipe.py", [], "the recipe ./recipe.py"),
]


@pytest.mark.parametrize(("recipe", "settings", "says"), WAYS)
@pytest.mark.parametrize("toy", [False, True])
def test_what_only_the_parameters_say_is_refused_before_it_is_run(
    recipe: str, settings: list[str], says: str, toy: bool
) -> None:
    with pytest.raises(UserError, match="The run's parameters ask") as refused:
        chosen(recipe, settings, toy, from_parameters=True)
    assert says in str(refused.value) and "--allow-commands" in str(refused.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [(recipe, settings) for recipe, settings, _ in WAYS if "antigravity" not in str(settings)],
)
def test_what_was_typed_on_this_machine_a_run_may_execute(
    recipe: str, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapflow.flows.align.check_judge", lambda *arguments, **options: None)
    remember(executed_by(recipe, chosen(recipe, settings, True)))
    chosen(recipe, settings, True, from_parameters=True)
    assert oct(Path("data/allowed.txt").stat().st_mode)[-3:] == "600"
    with pytest.raises(UserError, match="The run's parameters ask"):
        chosen("rso", [*SERVE[:2], "sampler.serve=another {port}"], True, from_parameters=True)


def test_a_function_is_known_by_its_file_wherever_it_is_named_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember(executed_by("rso", chosen("rso", ["judge=./mine.py:short"], True)))
    here = Path.cwd()
    monkeypatch.chdir("more")
    chosen("rso", [f"judge={here}/more/../mine.py:short"], True, from_parameters=True)
    Path("mine.py").write_text(
        "def short(prompt, completion): return 0\n"
    )  # another file, by the same words
    with pytest.raises(UserError, match="The run's parameters ask by `judge`"):
        chosen("rso", ["judge=./mine.py:short"], True, from_parameters=True)


def test_a_recipe_file_of_this_machine_says_itself_what_it_executes() -> None:
    Path("own.yaml").write_text("base: rso\njudge: ./mine.py:short\n")
    assert chosen("./own.yaml", [], True, from_parameters=True).judge == spec_of("./mine.py:short")
    with pytest.raises(UserError, match=r"asks? by `evaluation.judge`"):
        chosen("./own.yaml", ["evaluation.judge=./mine.py:other"], True, from_parameters=True)


@pytest.mark.parametrize("judge", [*PROGRAMS, "regex:^yes", "keywords:a,b", "reward-model"])
def test_judges_of_our_own_need_no_leave(judge: str) -> None:
    assert (
        executed_by("rso", chosen("rso", [], True).model_copy(update={"judge": spec_of(judge)}))
        == set()
    )


def test_a_worker_that_allows_commands_allows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "1")
    assert chosen("rso", SERVE, True, from_parameters=True).sampler.serve == "touch MARK {port}"


@pytest.mark.parametrize("text", ["", "nonsense\n", "\n\n3"])
def test_a_broken_file_allows_nothing(text: str) -> None:
    path = Path("data/allowed.txt")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert not is_allowed("command x")
    remember(["command x"])
    assert is_allowed("command x")


def deployment(**other: Any) -> Any:
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": "/work"}}]
    job = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
    return SimpleNamespace(
        **{
            "entrypoint": "dapflow.flows.night.night",
            "path": ".",
            "pull_steps": steps,
            "job_variables": job,
        }
        | other
    )


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"entrypoint": "evil.module.flow"}, "the entry point evil.module.flow"),
        ({"entrypoint": "/tmp/evil.py:night"}, "the entry point"),
        ({"pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "touch mark"}}]}, "the pull step prefect.deployments.steps.run_shell_script"),
        ({"pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": ".", "requires": "evil"}}]}, "the pull step"),
    ],
)  # fmt: skip
def test_a_deployment_of_another_kind_is_unusual_until_it_was_made_here(
    other: dict[str, Any], says: str
) -> None:
    assert unusual(deployment()) is None and unusual(deployment(pull_steps=None)) is None
    found = deployment(**other)
    asked = unusual(found)
    assert asked is not None and asked.startswith(says)
    assert not is_allowed(start_of(found))
    remember([start_of(found)])
    assert is_allowed(start_of(found)) and not is_allowed(
        start_of(deployment(**other, job_variables={"command": "sh"}))
    )


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"command": "sh -c 'touch mark'"}, "the command"),
        ({"working_dir": "/tmp"}, "the working directory"),
        ({"env": {"PYTHONPATH": "/tmp"}}, "the environment variable PYTHONPATH"),
        (
            {"env": {"PREFECT_API_URL": "http://192.0.2.1/api"}},
            "the environment variable PREFECT_API_URL",
        ),
        ({"env": {ALLOW: "1"}}, f"the environment variable {ALLOW}"),
        ({"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}, None),
        ({}, None),
    ],
)
def test_a_run_changes_nothing_of_how_it_is_started(
    variables: dict[str, Any], says: str | None
) -> None:
    from prefect.workers.process import ProcessJobConfiguration

    configured, plain = ProcessJobConfiguration(**variables), ProcessJobConfiguration()
    for each in (configured, plain):
        each.prepare_for_flow_run(
            SimpleNamespace(id="1", name="n", flow_id=None, deployment_id=None)
        )  # type: ignore[arg-type]
    asked = changed(configured, plain)
    assert (asked is None) if says is None else (asked is not None and asked.startswith(says))
    own = ProcessJobConfiguration(**of_job(deployment(job_variables=variables)))
    own.prepare_for_flow_run(SimpleNamespace(id="1", name="n", flow_id=None, deployment_id=None))  # type: ignore[arg-type]
    assert changed(configured, own) is None
    assert os.environ.get(ALLOW) is None

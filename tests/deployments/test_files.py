"""compose.yaml, the Kubernetes resources and prefect.yaml against their schemas; what they have in
common stays the same; no secret in them.
"""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import compose_spec
import kubernetes_validate
import pytest
import yaml

from dapflow import deployments
from dapflow.flows.cli.main import app
from dapflow.flows.cli.nights.deploy import QUEUE
from dapflow.flows.cli.nights.server import POOL
from dapflow.flows.recipes.methods import RECIPES

HERE = Path(deployments.__file__).parent
RESOURCES = [
    (f"{file.name} {one['kind']} {one['metadata']['name']}", one)
    for file in sorted((HERE / "kubernetes").glob("*.yaml"))
    if file.name != "kustomization.yaml"
    for one in yaml.safe_load_all(file.read_text())
]
COMPOSE = yaml.safe_load((HERE / "compose.yaml").read_text())


@pytest.mark.parametrize(
    "resource", [one for _, one in RESOURCES], ids=[name for name, _ in RESOURCES]
)
def test_a_resource_is_what_kubernetes_takes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_a_job_as_the_worker_fills_it_in_is_what_kubernetes_takes() -> None:
    pool = json.loads((HERE / "kubernetes" / "pool.json").read_text())
    given = {name: field.get("default") for name, field in pool["variables"]["properties"].items()}
    given |= {
        "command": ["prefect", "flow-run", "execute"],
        "env": [{"name": "A", "value": "1"}],
        "labels": {"a": "b"},
        "name": "night",
    }

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        whole = re.fullmatch(r"\{\{ (\w+) \}\}", value) if isinstance(value, str) else None
        return (
            given[whole[1]]
            if whole
            else re.sub(r"\{\{ (\w+) \}\}", lambda hit: given[hit[1]], value)
            if isinstance(value, str)
            else value
        )

    job = filled(pool["job_configuration"]["job_manifest"])
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_kubernetes_applies_every_file() -> None:
    described = yaml.safe_load((HERE / "kubernetes" / "kustomization.yaml").read_text())
    assert set(described["resources"]) | {"kustomization.yaml"} == {
        file.name for file in (HERE / "kubernetes").glob("*.yaml")
    }


def test_compose_is_what_compose_takes_and_its_parts_fit() -> None:
    compose_spec.ComposeSpecification.model_validate(
        {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    )
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= COMPOSE[
            "volumes"
        ].keys(), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if service.get("image") == "dapflow":
            app.parse_args(
                service["command"], exit_on_error=False, print_error=False
            )  # a command that there is
    named = set(re.findall(r"\$\{(\w+)", (HERE / "compose.yaml").read_text())) - {"VLLM_MODEL"}
    assert named == {
        line.partition("=")[0]
        for line in (HERE / "env.example").read_text().splitlines()
        if "=" in line
    }


def test_only_its_user_writes_into_his_home() -> None:
    as_root, _, _ = (HERE / "Dockerfile").read_text().partition("\nUSER dapflow\n")
    assert not [
        line for line in as_root.splitlines() if line.startswith("RUN") and "/home/" in line
    ]  # install -d -o: its parents are root's
    image = COMPOSE["services"]["server"]["image"]
    shared = {
        (volume.partition(":")[0], one["image"] == image)
        for one in COMPOSE["services"].values()
        for volume in one.get("volumes", [])
    }
    assert len({volume for volume, _ in shared}) == len(
        shared
    )  # no volume of ours is written by the user of another image


def test_no_password_stands_in_a_file() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY$|TOKEN|AUTH", name):
                assert value.startswith("${"), name
    for file in HERE.rglob("*.example"):
        assert all(
            line.endswith(("=", "=me:")) or "@" in line
            for line in file.read_text().splitlines()
            if "=" in line
        ), file


def test_the_licence_of_every_package_is_listed() -> None:
    names = {
        line.partition("==")[0]
        for line in (HERE.parent / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    rows = [
        line.split("|")[2]
        for line in (HERE / "LICENCES.md").read_text().splitlines()
        if line.startswith("|")
    ][2:]
    assert {name.strip() for row in rows for name in row.split(",")} == names


def test_prefect_yaml_has_a_night_of_each_main_recipe_in_the_queue_that_lets_one_through() -> None:
    described = yaml.safe_load((HERE / "prefect.yaml").read_text())
    for one in described["deployments"]:
        assert one["parameters"]["recipe"] == one["name"]
        assert one["name"] in RECIPES
        assert (one["work_pool"]["name"], one["work_pool"]["work_queue_name"]) == (POOL, QUEUE)
        assert one["schedules"][0]["timezone"]


def test_a_server_answers_to_the_name_that_workers_reach_it_by() -> None:
    named = COMPOSE["services"]["server"]["environment"]["DAPFLOW_HOSTS"].split()
    assert (
        urlsplit(COMPOSE["services"]["worker"]["environment"]["PREFECT_API_URL"]).hostname in named
    )
    [config] = yaml.safe_load((HERE / "kubernetes" / "kustomization.yaml").read_text())[
        "configMapGenerator"
    ][:1]
    address = next(
        value
        for name, _, value in (line.partition("=") for line in config["literals"])
        if name == "PREFECT_API_URL"
    )
    [server] = dict(RESOURCES)["server.yaml Deployment server"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert (
        urlsplit(address).hostname
        in next(one["value"] for one in server["env"] if one["name"] == "DAPFLOW_HOSTS").split()
    )
    assert server["readinessProbe"]["httpGet"]["httpHeaders"] == [
        {"name": "Host", "value": "localhost"}
    ]  # else it asks by the pod's address

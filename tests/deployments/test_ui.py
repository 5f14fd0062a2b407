"""The Prefect UI in a real browser, on a real server and worker, as people use it: make
test-nights.

A night is asked for by its form, killed, tried again by the Retry button; then its graph, its
artifacts and its lineage are looked at. DAPFLOW_SCREENSHOTS=FOLDER keeps the pictures of the
documentation (.github/images).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dapflow.storage import Lake
from tests.deployments.services import SMALL, Services, check_resumed, services, settings, wait

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.nights,
    pytest.mark.browser,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("ui")) as found:
        found.dapflow("deploy", "--toy", *settings(SMALL))
        yield found


@pytest.fixture
def shown(browser: "Browser") -> "Iterator[Page]":
    with browser.new_context(
        viewport={"width": 1300, "height": 900}, color_scheme="light"
    ) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        yield page


def test_a_night_is_asked_for_tried_again_and_looked_into_in_the_ui(
    run: Services, shown: "Page"
) -> None:
    night = fill_in_the_form(run, shown)
    kill_and_retry(run, night, shown)
    iteration = run.iterations(night)[-1]
    look_at_the_graph(run, iteration, shown)
    click_down_to_a_prompt(run, iteration, shown)


def fill_in_the_form(run: Services, shown: "Page") -> str:
    """A deployment's form starts a night as filled in. Returns its run."""
    deployment = run.api("deployments/name/night/rso")["id"]
    before = started(run)
    shown.goto(f"{site(run)}/deployments/deployment/{deployment}/run")
    form = shown.locator("form")
    form.locator("textarea").nth(len(SMALL)).wait_for()
    assert [
        form.locator("textarea").nth(place).input_value() for place in range(len(SMALL) + 1)
    ] == [*SMALL, run.lake]
    keep(shown, "form")
    form.locator("textarea").nth(len(SMALL) - 1).fill("sampling.max_tokens=5")
    form.locator(".p-select button").first.focus()
    shown.keyboard.press("ArrowDown")
    shown.locator(".p-select-option").get_by_text("sft-sample-rank", exact=True).click()
    shown.get_by_role("button", name="Submit").click()
    wait("the form is taken", lambda: started(run) - before)
    (night,) = started(run) - before
    asked = run.api(f"flow_runs/{night}")["parameters"]
    assert asked == {
        "recipe": "sft-sample-rank",
        "settings": [*SMALL[:-1], "sampling.max_tokens=5"],
        "toy": True,
        "lake": run.lake,
    }
    return night


def kill_and_retry(run: Services, night: str, shown: "Page") -> None:
    """The Retry button goes on with a night that was killed."""
    wait("it trains", lambda: run.begun(night, "train with"), lambda: str(run.state(night)))
    process = run.process_of(night)
    assert process is not None
    process.kill()
    run.wait_for(night, "Crashed")
    shown.goto(f"{site(run)}/runs/flow-run/{night}")
    shown.get_by_role("button", name="Retry").click()
    shown.locator(".p-modal").get_by_role("button", name="Retry").click()
    run.wait_for(night, "GateClosed", "Promoted")
    check_resumed(run.attempts(night))
    shown.reload()
    shown.get_by_text(run.state(night)["name"]).first.wait_for()
    keep(shown, "night")


def look_at_the_graph(run: Services, iteration: str, shown: "Page") -> None:
    """The run graph has the edges of the lineage."""
    graph = dict(run.api(f"flow_runs/{iteration}/graph-v2")["nodes"])
    made = {
        one["task_run_id"]: one["description"]
        for one in artifacts(run)
        if "@" in str(one["description"])
    }
    drawn = {
        (made[parent["id"]], made[node])
        for node, told in graph.items()
        for parent in told["parents"]
        if {node, parent["id"]} <= made.keys()
    }
    with Lake(run.lake, read_only=True) as lake:
        names = {
            row["version"]: f"{row['kind']}@{row['version']}"
            for row in lake.rows("SELECT version, kind FROM versions")
        }
        edges = [
            (names[row["parent"]], names[row["child"]])
            for row in lake.rows("SELECT parent, child FROM edges")
        ]
    here = {made[node] for node in graph if node in made}
    known = {(parent, child) for parent, child in edges if {parent, child} <= here}
    assert drawn == known
    assert {"train with sigmoid_norm", "evaluate"} <= {told["label"] for told in graph.values()}
    shown.goto(f"{site(run)}/runs/flow-run/{iteration}")
    shown.locator("canvas").first.wait_for()
    shown.get_by_text("Finished in state").first.wait_for()
    keep(shown, "graph", settle=5_000)


def click_down_to_a_prompt(run: Services, iteration: str, shown: "Page") -> None:
    """Artifacts lead from the policy down to one prompt."""
    mine = [one for one in artifacts(run) if one["flow_run_id"] == iteration]
    pairs = next(one for one in mine if one["key"] == "pair")
    shown.goto(f"{site(run)}/artifacts/artifact/{pairs['id']}")
    shown.get_by_text("chosen").first.wait_for()
    labels = shown.locator(".markdown-renderer__text--strong").all_inner_texts()
    assert labels[0] == "prompt"
    assert labels[1].startswith("chosen (")
    assert labels[2] == "rejected"
    keep(shown, "artifact")
    policy = next(one for one in mine if one["key"] == "train")
    shown.goto(f"{site(run)}/artifacts/artifact/{policy['id']}")
    with shown.context.expect_page() as opened:
        shown.locator('a[href*="/lineage/"]').first.click()
    page = opened.value
    page.set_default_timeout(60_000)
    assert policy["description"].split("@")[1][:8] in page.inner_text("h1")
    version = pairs["description"].split("@")[1]
    with Lake(run.lake, read_only=True) as lake:
        pair = lake.rows(
            "SELECT prompt_id, prompt FROM pairs WHERE version = ? AND dropped IS NULL ORDER BY id LIMIT 1",
            [version],
        )[0]
    prompts, _, number = pair["prompt_id"].partition("-")
    page.locator("dl a", has_text=version[:8]).first.click()
    page.locator("table a", has_text=re.compile(f"^{prompts[:8]}-{int(number)}$")).first.click()
    assert page.inner_text(".prompt").strip() == pair["prompt"].strip()
    assert page.locator("article", has_text="trained on").count() >= 1


def site(run: Services) -> str:
    """Where the UI is."""
    return run.url.removesuffix("/api")


def started(run: Services) -> set[str]:
    """The nights that somebody has asked for: those of the schedule lie ahead."""
    of_deployments = run.api(
        "flow_runs/filter", {"flow_runs": {"deployment_id": {"is_null_": False}}}
    )
    return {one["id"] for one in of_deployments if not one["auto_scheduled"]}


def artifacts(run: Services) -> list[dict[str, str]]:
    """Of all runs, the newest first."""
    return run.api("artifacts/filter", {"sort": "CREATED_DESC"})


def keep(page: "Page", name: str, settle: int = 2_000) -> None:
    """A picture of what is shown, where pictures are wanted. settle: milliseconds for what moves."""
    if folder := os.environ.get("DAPFLOW_SCREENSHOTS"):
        page.wait_for_timeout(settle)
        page.screenshot(path=Path(folder) / f"ui-{name}.png")

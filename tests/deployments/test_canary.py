"""Prefect's UI in a real browser on a run whose recipe and prompts hold pictures and links: nothing
is fetched and nothing is a link to follow.

make test-nights
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployments.services import Services, settings
from tests.helpers.toy import BY_LENGTH

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.nights,
    pytest.mark.browser,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def canary() -> "Iterator[tuple[str, list[str]]]":
    """An address that nobody has a reason to ask, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def hostile(url: str, place: str) -> list[str]:
    """Ways to have a page fetch or link an address."""
    return [
        f"![p]({url}/{place}.png)",
        f'<img src="{url}/{place}-html.png"> &lt;b&gt; <a href="{url}">l</a> [l]({url}) <{url}> {url}/bare javascript:alert(1)',
        f"![p][1] | cell \\| `code` **bold**\n\n[1]: {url}/{place}-reference.png\n\n```\n![p]({url}/{place}-fence.png)\n",
        f"x\n\n    indented\n> ![p]({url}/{place}-quotation.png)\n# heading\n| a | b |\n| - | - |\n| ![p]({url}/{place}-cell.png) | |\n",
    ]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, canary: tuple[str, list[str]]
) -> Iterator[Services]:
    """A server, and a run on it: the recipe's name, its title and all of its prompts are hostile."""
    url, folder = canary[0], tmp_path_factory.mktemp("canary")
    prompts = [f"{text} {number}" for number in range(5) for text in hostile(url, "prompt")]
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    )
    recipe = {"base": "rso", "name": f"![n]({url}/name.png)", "title": f"<img src={url}/title.png>"}
    recipe["prompts"] = {"source": str(folder / "prompts.jsonl")}
    (folder / "mine.yaml").write_text(json.dumps(recipe))
    found = Services(folder)
    try:
        found.start_server()
        found.dapflow("run", str(folder / "mine.yaml"), "--toy", *settings(BY_LENGTH))
        yield found
    finally:
        found.end()


def test_no_page_of_the_ui_fetches_or_links_what_a_run_holds(
    run: Services, browser: "Browser", canary: tuple[str, list[str]]
) -> None:
    url, asked = canary
    site = run.url.removesuffix("/api")
    artifacts = run.api("artifacts/filter", {})
    [flow_run] = [
        one["id"] for one in run.api("flow_runs/filter", {}) if one["parent_task_run_id"] is None
    ]
    tasks = run.api("task_runs/filter", {"limit": 200})
    assert {"report", "sample", "pair", "load-prompts"} <= {one["key"] for one in artifacts}
    assert any(url in str(one["data"]).replace("\\", "") for one in artifacts)
    pages = [
        "artifacts",
        *(f"artifacts/artifact/{one['id']}" for one in artifacts),
        *(f"artifacts/key/{key}" for key in {one["key"] for one in artifacts}),
        "runs",
        *(
            f"runs/flow-run/{flow_run}?tab={tab}"
            for tab in ("Artifacts", "Logs", "Details", "Parameters")
        ),
        *(
            f"runs/task-run/{one['id']}?tab={tab}"
            for one in tasks
            for tab in ("Artifacts", "Details")
        ),
    ]
    links: dict[str, list[str]] = {}
    with browser.new_context() as context:
        page = context.new_page()
        page.on(
            "request",
            lambda request: asked.append(request.url) if request.url.startswith(url) else None,
        )
        for address in pages:
            links[address] = found if (found := followed(page, f"{site}/{address}", url)) else []
    assert asked == []
    assert {address: found for address, found in links.items() if found} == {}


def followed(page: "Page", address: str, url: str) -> list[str]:
    """The links of a page, once it is drawn, that lead to an address."""
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return [
        link
        for link in page.locator("a").evaluate_all("links => links.map(link => link.href)")
        if link.startswith((url, "javascript:"))
    ]

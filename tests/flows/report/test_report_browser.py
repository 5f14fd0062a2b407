"""The pages in a real browser: nothing is loaded, nothing that they show is run, they fit a phone,
they turn dark, and their links lead down to a prompt.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dapflow.flows.report.drawing.lineage import write_lineage
from dapflow.flows.report.drawing.page import page, write
from dapflow.flows.report.find import find
from dapflow.flows.report.gather import gather
from dapflow.storage import Lake
from tests.helpers.evaluated import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def site(measured: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the hostile run with its lineage pages beside it."""
    folder = tmp_path_factory.mktemp("site")
    names = write_lineage(
        measured,
        find(measured, "worse")[0].policy,
        folder / "lineage",
        prompts=3,
        report="../index.html",
    )
    write(
        folder / "index.html",
        page(gather(measured, ["worse"]), {key: f"lineage/{name}" for key, name in names.items()}),
    )
    return folder


@pytest.fixture
def opened(browser: "Browser", site: Path) -> "Iterator[tuple[Page, list[str]]]":
    """The report, and whatever went wrong or was asked for while it is open."""
    heard: list[str] = []
    with browser.new_context(
        viewport={"width": 1100, "height": 900}, color_scheme="light"
    ) as context:
        shown = context.new_page()
        shown.on("console", lambda message: heard.append(message.text))
        shown.on("pageerror", lambda error: heard.append(str(error)))
        shown.on("dialog", lambda dialog: heard.append(dialog.message))
        shown.on(
            "request",
            lambda request: (
                heard.append(request.url) if not request.url.startswith("file:") else None
            ),
        )
        shown.goto((site / "index.html").as_uri())
        yield shown, heard


def test_it_loads_nothing_and_runs_nothing_that_it_shows(opened: "tuple[Page, list[str]]") -> None:
    shown, heard = opened
    assert HOSTILE in shown.locator(".prompt").first.inner_text()
    shown.locator("summary").first.click()
    assert shown.locator(".example").nth(3).is_visible()
    assert heard == []


def test_it_fits_a_phone(opened: "tuple[Page, list[str]]") -> None:
    shown, _ = opened
    shown.set_viewport_size({"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") == 360
    left, right = (shown.locator(".sides > div").nth(place).bounding_box() for place in (0, 1))
    assert left and right and right["y"] >= left["y"] + left["height"]  # one answer under the other


def test_it_turns_dark_and_prints_on_white(opened: "tuple[Page, list[str]]") -> None:
    shown, _ = opened

    def brightness(of: str) -> float:
        colour = shown.evaluate(f"getComputedStyle(document.body).{of}")
        return sum(int(one) for one in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3

    assert brightness("backgroundColor") > 200 > 60 > brightness("color")
    shown.emulate_media(color_scheme="dark")
    assert brightness("backgroundColor") < 60 < 200 < brightness("color")
    shown.emulate_media(color_scheme="dark", media="print")
    assert (brightness("backgroundColor"), brightness("color")) == (255, 0)


def test_links_lead_from_the_report_to_the_policy_to_its_pairs_to_one_prompt(
    measured: Lake, opened: "tuple[Page, list[str]]"
) -> None:
    shown, heard = opened
    found = find(measured, "worse")[0]
    shown.get_by_role("link", name="where it came from").click()
    shown.locator("svg a", has_text=found.policy[:8]).click()
    assert f"models@{found.policy[:8]}" in shown.inner_text("h1")
    shown.locator("dl a", has_text=found.parts["pairs"][:8]).click()
    shown.locator("table a", has_text=f"{found.parts['prompts'][:8]}-1").first.click()
    assert shown.inner_text(".prompt").startswith("question 4.1 of a prompt")
    assert shown.locator("article", has_text="trained on").count() == 1
    shown.get_by_role("link", name="report").click()
    assert shown.url.endswith("/index.html") and shown.locator(".verdict").is_visible()
    assert heard == []

"""A real browser for the tests of pages: Chromium from the system, driven by Playwright, offline
but for loopback.

A test takes the fixture `browser` and is marked `browser`; where there is no Chromium it is skipped
with a sentence.
"""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def chromium() -> str | None:
    """Where it is: DAPFLOW_CHROMIUM, or on the path."""
    return (
        os.environ.get("DAPFLOW_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("google-chrome")
    )


@pytest.fixture
def browser() -> "Iterator[Browser]":
    """A browser of the test's own: `browser.new_page(viewport=...)`. Playwright keeps an event loop
    running in this thread until the test ends; one that lived on would break every later test that
    runs a loop itself.
    """
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: make test-browser brings it."
    )
    if (path := chromium()) is None:
        pytest.skip(
            "There is no Chromium: apt-get install chromium, or name one in DAPFLOW_CHROMIUM."
        )
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=list(_FLAGS), timeout=180_000
        )
        yield started
        started.close()

"""The labelling page in a real browser: keys, taps, undo, a reload, a run that dies in the middle,
and answers that are HTML.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from dapflow.storage import Lake
from dapflow.storage.labels import Question, latest_labels
from dapflow.tasks.judging.judges.desk.server import Desk, serve
from dapflow.tasks.judging.judges.desk.sitting import Sitting

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\"><b>bold</b>"
QUESTIONS = [
    Question.of(
        "anna",
        "Which would you rather read?",
        f"Question <i>{n}</i>?",
        f"good {n} {EVIL}",
        f"bad {n} " + "long " * 400 * (n == 0),
    )
    for n in range(5)
]
KEYS = [question.key for question in QUESTIONS]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
_CHANGED = "before => document.getElementById('work').hidden || document.getElementById('prompt').textContent !== before"


@pytest.fixture
def sitting(lake: Lake) -> Sitting:
    return Sitting(lake, QUESTIONS, None, 0, {}, grace=3600)


@pytest.fixture
def desk(sitting: Sitting) -> Iterator[Desk]:
    with serve(Desk(host="127.0.0.1", port=0)) as desk:
        desk.show(sitting)
        yield desk


def opened(browser: "Browser", desk: Desk, **settings: Any) -> "Page":
    page = browser.new_page(**settings)
    page.set_default_timeout(120_000)
    page.goto(f"http://127.0.0.1:{desk.port}")
    page.wait_for_selector("#work:not([hidden])")
    return page


def press(page: "Page", key: str) -> None:
    before = page.inner_text("#prompt")
    page.keyboard.press(key)
    page.wait_for_function(_CHANGED, arg=before)


def test_keys_label_undo_takes_back_and_a_reload_goes_on(
    browser: "Browser", desk: Desk, lake: Lake
) -> None:
    page = opened(browser, desk)
    assert page.inner_text("#instruction") == "Which would you rather read?"
    asked = [page.inner_text("#prompt")]
    for key in ("1", "2", "t"):
        press(page, key)
        asked.append(page.inner_text("#prompt"))
    assert len(set(asked)) == 4
    assert (page.inner_text("#count"), page.title()) == ("3 of 5", "Which answer is better?")
    press(page, "u")
    assert page.inner_text("#prompt") == asked[2]
    assert len(latest_labels(lake, KEYS)) == 2
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    assert (page.inner_text("#prompt"), page.inner_text("#count")) == (asked[2], "2 of 5")
    for key in ("s", "1", "2"):
        press(page, key)
    page.wait_for_selector("#end:not([hidden])")
    assert sorted(
        one.label in ("first", "second") for one in latest_labels(lake, KEYS).values()
    ) == [False, True, True, True, True]
    press_enter_finishes(page, desk)
    page.close()


def press_enter_finishes(page: "Page", desk: Desk) -> None:
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('finish').hidden")
    assert desk.sitting is not None
    desk.sitting.wait()


def test_answers_are_text_and_never_html(browser: "Browser", desk: Desk) -> None:
    page, errors = opened(browser, desk), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    texts = [page.inner_text("#left"), page.inner_text("#right")]
    assert any(EVIL in text for text in texts)
    assert page.locator("#left b, #right b, #left img, #right img, #prompt i").count() == 0
    assert (page.title(), errors) == ("Which answer is better?", [])
    page.close()


def test_a_phone_shows_it_without_scrolling_sideways_and_taps_label(
    browser: "Browser", desk: Desk, lake: Lake
) -> None:
    page = opened(browser, desk, **PHONE, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    heights = page.eval_on_selector_all(
        "button:not([hidden])",
        "all => all.filter(one => one.offsetHeight).map(one => one.offsetHeight)",
    )
    assert min(heights) >= 44  # what a thumb hits
    assert (
        page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"
    )  # dark, as the phone is
    before = page.inner_text("#prompt")
    page.tap("[data-choice=left]")
    page.wait_for_function(_CHANGED, arg=before)
    assert len(latest_labels(lake, KEYS)) == 1
    page.close()


def test_a_page_outlives_the_run_that_served_it(
    browser: "Browser", lake: Lake, sitting: Sitting
) -> None:
    with serve(Desk(host="127.0.0.1", port=0)) as desk:
        desk.show(sitting)
        page = opened(browser, desk)
        press(page, "1")
        shown = page.inner_text("#prompt")
    page.wait_for_function(
        "() => document.getElementById('news').textContent.includes('does not answer')"
    )
    with serve(Desk(host="127.0.0.1", port=desk.port)) as again:  # the same command, started again
        again.show(Sitting(lake, QUESTIONS, None, 0, latest_labels(lake, KEYS), grace=3600))
        page.wait_for_function("() => !document.getElementById('news').textContent")
        assert (page.inner_text("#prompt"), page.inner_text("#count")) == (shown, "1 of 5")
        press(page, "2")
    assert len(latest_labels(lake, KEYS)) == 2
    page.close()

"""How the pages look: axe-core finds nothing serious in any state, at any size, and the pictures of the documentation are taken.

Pictures are written with GPTWRIGHT_SCREENSHOTS=1; GPTWRIGHT_SCREENSHOT_URL takes them of a server that runs already, with a model of
one's own.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURES = Path(__file__).parents[2] / "docs" / "img"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
OWN = os.environ.get("GPTWRIGHT_SCREENSHOT_URL")


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, from a package that ships it."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not here. Run: pip install axe-playwright-python")
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def say(page: Any, text: str, answers: int = 1) -> None:
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Enter")
    page.get_by_role("button", name="Another answer").nth(answers - 1).wait_for(timeout=60_000)


def serious(page: Any, axe: str, state: str) -> list[str]:
    """What axe-core calls serious or critical."""
    page.wait_for_timeout(450)  # what fades in has no contrast yet
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
    return [
        f"{state}: {one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(
    ("scheme", "size"), [("light", {}), ("dark", {}), ("dark", PHONE)], ids=["light", "dark", "phone"]
)
def test_page_when_axe_looks_at_it_in_every_state_then_nothing_is_serious(
    open_page: Any, url: str, axe: str, scheme: str, size: dict[str, Any]
) -> None:
    page = open_page(url, color_scheme=scheme, **size)
    found: list[str] = []

    def look(state: str) -> None:
        found.extend(serious(page, axe, state))

    page.locator(".gw-ideas button").first.wait_for()
    look("start")
    say(page, "markdown")
    say(page, "Tell me a story", 2)
    page.get_by_role("button", name="Another answer").last.click()
    page.get_by_text("Version 2 of 2").wait_for()
    look("conversation")
    page.get_by_role("button", name="Word probabilities").last.click()
    page.locator(".gw-w").nth(4).click()
    page.get_by_role("dialog").wait_for()
    look("words")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Training texts in this answer").last.click()
    page.get_by_role("region", name="Training texts in this answer").wait_for()
    look("texts")
    page.get_by_role("button", name="Correct this answer").last.click()
    look("correction")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_role("slider", name="Temperature").wait_for()
    look("settings")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Good answer").last.click()
    page.get_by_role("button", name="Yes, keep them").wait_for()
    look("consent")
    page.get_by_role("button", name="No", exact=True).click()
    if size:
        page.get_by_role("button", name="Show the list").click()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    look("list and shortcuts")
    page.goto(url + "/compare")
    page.get_by_label("First model").wait_for()
    box = page.get_by_label("Message", exact=True)
    box.fill("markdown")
    box.press("Enter")
    page.get_by_role("button", name="Both are bad").wait_for()
    look("two models")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert found == [], "\n".join(found)


@pytest.mark.skipif(os.environ.get("GPTWRIGHT_SCREENSHOTS") != "1", reason="set GPTWRIGHT_SCREENSHOTS=1 to take them")
@pytest.mark.parametrize("name", ["chat", "chat-dark", "chat-phone"])
def test_screenshots_when_asked_for_then_they_are_written(open_page: Any, url: str, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    phone = name == "chat-phone"
    scheme = "dark" if name == "chat-dark" else "light"
    page = open_page(OWN or url, device_scale_factor=2, color_scheme=scheme, **(PHONE if phone else {}))
    page.locator(".gw-ideas button").first.wait_for()

    def take(picture: str) -> None:
        page.mouse.move(5, 5)
        page.wait_for_timeout(800)
        page.screenshot(path=PICTURES / f"{picture}.png")
        assert (PICTURES / f"{picture}.png").stat().st_size > 20_000

    say(page, "Tell me a short story.")
    if not phone:
        say(page, "What do you like to do?" if OWN else "How do you work?", 2)
        page.get_by_role("button", name="Another answer").last.click()
        page.get_by_text("Version 2 of 2").wait_for(timeout=60_000)
        page.get_by_role("button", name="Another answer").last.wait_for()
    take(name)
    if name == "chat":
        page.get_by_role("button", name="Earlier version").last.click()
        page.get_by_role("button", name="Word probabilities").first.click()
        page.locator(".gw-w").nth(7).click()
        page.get_by_role("dialog").wait_for()
        take("chat-words")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Word probabilities").first.click()
        page.get_by_role("button", name="Training texts in this answer").first.click()
        page.locator(".gw-texts li, .gw-texts p").first.wait_for()
        take("chat-texts")
        page.goto((OWN or url) + "/compare")
        page.get_by_label("First model").wait_for()
        box = page.get_by_label("Message", exact=True)
        box.fill("Tell me a short story.")
        box.press("Enter")
        page.get_by_role("button", name="A is better").wait_for(timeout=60_000)
        take("chat-compare")

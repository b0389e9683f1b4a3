"""The report's pictures for the documentation, taken when asked for."""

import os
import shutil
from pathlib import Path

import pytest

PICTURES = Path(__file__).parents[3] / "docs" / "img"


@pytest.mark.browser
@pytest.mark.skipif(
    not os.environ.get("GPTWRIGHT_SCREENSHOT_REPORT"), reason="set GPTWRIGHT_SCREENSHOT_REPORT=work/reports/data.html"
)
@pytest.mark.parametrize(("scheme", "name"), [("light", "data-report"), ("dark", "data-report-dark")])
def test_report_when_a_picture_is_asked_for_then_it_is_written(scheme: str, name: str) -> None:
    # `gptwright data report` of a project of one's own makes the page that the variable names.
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    sync_api = pytest.importorskip("playwright.sync_api")
    page = Path(os.environ["GPTWRIGHT_SCREENSHOT_REPORT"]).resolve()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        view = browser.new_page(viewport={"width": 1100, "height": 1250}, color_scheme=scheme)
        view.goto(page.as_uri())
        view.screenshot(path=PICTURES / f"{name}.png")
        browser.close()
    assert (PICTURES / f"{name}.png").stat().st_size > 20_000

"""The chat page in a real browser."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MODEL = "demo-finetune-0123456789"


def ready(page: Any) -> Any:
    """Wait until the page knows its model; return the input."""
    page.locator(".gw-ideas button").first.wait_for()
    return page.get_by_label("Message", exact=True)


def say(page: Any, text: str) -> None:
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Enter")


def settled(page: Any, number: int = 1, timeout: float = 15_000) -> None:
    """Wait until so many answers are complete."""
    page.get_by_role("button", name="Another answer").nth(number - 1).wait_for(timeout=timeout)


def cancelled(url: str) -> float:
    found = re.search(r'gptwright_cancelled_total\{reason="client_gone"\} ([\d.]+)', httpx.get(url + "/metrics").text)
    return float(found[1]) if found else 0.0


def wait_for(condition: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_page_when_opened_then_it_says_that_this_is_an_ai_and_which(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    notice = page.locator("#gw-notice")
    assert notice.is_visible()
    assert notice.inner_text() == f"You are talking to an AI, {MODEL}. It can be wrong; check what matters."
    assert page.evaluate("document.documentElement.lang") == "en-US"
    policy = httpx.get(url).headers["content-security-policy"]
    assert "default-src 'self'" in policy


def test_chat_when_enter_is_pressed_then_the_answer_streams_in_under_the_models_full_name(
    open_page: Any, url: str
) -> None:
    page = open_page(url)
    ready(page)
    say(page, "markdown")
    answer = page.locator(".gw-answer").last
    # At some moment the beginning is there and the end is not: the text comes in pieces.
    page.wait_for_function(
        "(() => { const t = document.querySelector('.gw-answer')?.innerText ?? '';"
        " return t.includes('Of course') && !t.includes('only those'); })()"
    )
    page.get_by_text("and only those").wait_for()
    assert page.get_by_role("article").get_by_text(MODEL).is_visible()
    assert answer.locator("ol li").count() == 3
    assert answer.locator("pre code").count() == 1
    settled(page)
    assert page.get_by_label("Message", exact=True).input_value() == ""
    assert page.evaluate("document.activeElement.id") == "gw-input"
    say(page, "and again")
    page.get_by_text("You said: and again").wait_for()


def test_input_when_shift_enter_is_pressed_then_it_is_a_new_line_and_nothing_is_sent(open_page: Any, url: str) -> None:
    page = open_page(url)
    box = ready(page)
    box.focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert box.input_value() == "one\ntwo"
    assert box.bounding_box()["height"] > 45
    assert page.locator(".gw-user").count() == 0
    page.get_by_role("button", name="Send").click()
    page.get_by_text("You said: one").wait_for()


@pytest.mark.parametrize("how", ["button", "escape", "new chat", "close"])
def test_stop_when_asked_for_then_the_model_stops_and_the_text_stays(open_page: Any, url: str, how: str) -> None:
    before = cancelled(url)
    page = open_page(url)
    ready(page)
    say(page, "hang" if how == "close" else "slow")
    page.get_by_role("button", name="Stop").wait_for() if how == "close" else page.get_by_text("tick tick").wait_for()
    assert not page.get_by_role("button", name="Send").is_visible()
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    elif how == "escape":
        page.keyboard.press("Escape")
    elif how == "new chat":
        page.get_by_role("button", name="New chat").first.click()
    else:
        page.close()
        # The server waits a while for the tab to come back before it gives it up.
        assert wait_for(lambda: cancelled(url) > before, 20)
        return
    assert wait_for(lambda: cancelled(url) > before)
    page.get_by_role("button", name="Send").wait_for()
    if how == "new chat":
        assert page.get_by_text("tick").count() == 0
        assert page.get_by_role("heading", level=1).is_visible()
    else:
        page.get_by_text("Stopped.").wait_for()
        length = len(page.locator(".gw-answer").inner_text())
        time.sleep(0.3)
        assert len(page.locator(".gw-answer").inner_text()) == length


def test_answer_when_a_model_writes_html_then_nothing_of_it_runs_or_loads(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    say(page, "hostile")
    page.get_by_text("fine", exact=True).wait_for()
    settled(page)
    answer = page.locator(".gw-answer")
    assert "<script>window.hacked" in answer.inner_text()
    assert answer.locator("script, img, iframe, svg, b").count() == 0
    assert answer.locator("a[href^=javascript]").count() == 0
    for element in answer.locator("a").all():
        assert re.match(r"https?://", element.get_attribute("href") or "")
    assert page.evaluate("window.hacked === undefined")


def test_message_when_a_person_writes_html_then_it_is_shown_as_text(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    say(page, "<img src=x onerror='window.hacked=1'> </script><script>window.hacked=2</script>")
    page.get_by_text("You said:").wait_for()
    assert page.locator(".gw-thread img, .gw-thread script").count() == 0
    assert page.evaluate("window.hacked === undefined")


def test_settings_when_changed_then_the_model_gets_them(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    page.get_by_role("button", name="Settings", exact=True).click()
    slider = page.get_by_role("slider", name="Temperature")
    page.wait_for_timeout(400)  # the menu takes the focus when it has opened
    for _ in range(4):
        slider.press("ArrowRight")
    page.get_by_text("0.90").wait_for()
    assert slider.input_value() == "0.9"
    page.keyboard.press("Escape")
    say(page, "settings")
    page.get_by_text('"temperature":0.9').wait_for()
    assert '"max_tokens":512' in page.locator(".gw-answer").inner_text()


def test_model_when_another_is_chosen_then_the_notice_and_the_next_answer_follow(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    choice = page.get_by_label("Model", exact=True)
    groups = choice.evaluate("e => [...e.querySelectorAll('optgroup')].map(g => [g.label, g.children.length])")
    assert groups == [["Own", 5], ["Open", 1]]
    assert choice.input_value() == "production"
    choice.select_option("demo-broken-9999999999")
    page.locator("#gw-notice").get_by_text("demo-broken-9999999999").wait_for()
    say(page, "hello")
    page.get_by_role("alert").get_by_text("cannot be loaded").wait_for()
    choice.select_option("production")
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("You said: hello").wait_for()
    # The alias was asked for; the answer names the model behind it.
    assert page.get_by_role("article").last.get_by_text(MODEL).is_visible()
    # A model whose engine knows no probabilities answers all the same.
    choice.select_option("demo-silent-3333333333")
    say(page, "and you?")
    page.get_by_text("You said: and you?").wait_for()
    settled(page, 2)
    assert page.get_by_role("article").last.get_by_role("button", name="Word probabilities").count() == 0


def test_answer_when_the_engine_breaks_then_the_page_says_so_and_goes_on(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    say(page, "fail")
    page.get_by_role("alert").get_by_text("The server failed").wait_for()
    say(page, "still there?")
    page.get_by_text("You said: still there?").wait_for()


def test_api_when_the_server_is_gone_then_the_failure_says_so(serve_pages: Any) -> None:
    from gptwright.studio.api import Api, ApiFailure, Model
    from gptwright.studio.settings import Settings

    with serve_pages() as url:
        pass

    async def ask() -> None:
        model = Model("production", "production")
        async for _ in Api(url).chat(model, [{"role": "user", "content": "x"}], Settings()):
            pass

    with pytest.raises(ApiFailure, match="Is it still running"):
        ThreadPoolExecutor().submit(lambda: asyncio.run(ask())).result()  # the browser's driver has a loop in this one


def test_theme_when_switched_then_it_is_dark_and_stays_so_after_a_reload(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark or light").click()
    page.wait_for_function("document.body.classList.contains('body--dark')")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    page.wait_for_function("document.body.classList.contains('body--dark')")


def test_page_when_read_by_a_machine_then_every_control_has_a_name_and_text_has_contrast(
    open_page: Any, url: str
) -> None:
    for scheme in ("light", "dark"):
        page = open_page(url, color_scheme=scheme)
        ready(page)
        say(page, "markdown")
        settled(page)
        page.wait_for_timeout(300)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea, [role=slider], [role=combobox], a')]
            .filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.innerText.trim()
                || (e.labels && e.labels.length) || e.closest('label')?.getAttribute('aria-label')))
            .map(e => e.outerHTML.slice(0, 120))"""
        )
        assert nameless == []
        for role in ("banner", "main", "contentinfo", "log", "navigation"):
            assert page.get_by_role(role).count() == 1, role
        weak = page.evaluate(CONTRAST)
        assert weak == [], scheme


def test_page_when_as_narrow_as_a_phone_then_nothing_sticks_out(open_page: Any, url: str) -> None:
    page = open_page(url, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    ready(page)
    say(page, "markdown")
    page.get_by_text("and only those").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("Show the list", "New chat", "Settings", "Send"):
        box = page.get_by_role("button", name=name).last.bounding_box()
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= 360, name
        assert box["width"] >= 36, name
        assert box["height"] >= 36, name
    crowded = (
        "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.scrollHeight > b.clientHeight + 1)"
    )
    assert page.evaluate(f"{crowded}.map(b => b.outerHTML.slice(0, 90))") == []


def test_socket_when_another_sites_page_connects_then_it_is_refused(url: str) -> None:
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    address = url.replace("http", "ws", 1) + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    for origin in ("https://evil.example", "null", url.replace("127.0.0.1", "127.0.0.2")):
        with pytest.raises(exceptions.InvalidStatus):
            client.connect(address, origin=origin)
    with client.connect(address, origin=url) as socket:
        assert socket.recv(timeout=5).startswith("0{")


def test_server_when_told_to_stop_while_a_page_is_open_then_it_stops_at_once(open_page: Any, serve_pages: Any) -> None:
    with serve_pages() as url:
        page = open_page(url)
        ready(page)
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_page_when_the_server_asks_for_a_key_then_the_page_asks_for_it_too(
    open_page: Any, serve_pages: Any, tmp_path: Path
) -> None:
    from gptwright.core.control import ControlStore
    from gptwright.serve.keys import create_key

    state = tmp_path / "control.sqlite"
    store = ControlStore.open(state)
    key, _ = create_key(store, "browser")
    store.close()
    with serve_pages("--state", str(state), "--config", '{"require_key": true}') as url:
        page = open_page(url)
        field = page.get_by_label("API key")
        field.fill("gw-wrong")
        field.press("Enter")
        page.get_by_role("alert").get_by_text("not known").wait_for()
        field.fill(key)
        field.press("Enter")
        ready(page)
        say(page, "hello")
        page.get_by_text("You said: hello").wait_for()
        page.get_by_role("button", name="hello", exact=True).wait_for()  # in the list, which belongs to the key
        assert key not in page.content()
        page.reload()
        page.get_by_label("API key").wait_for()
        assert page.get_by_text("You said: hello").count() == 0
        page.get_by_label("API key").fill(key)
        page.get_by_label("API key").press("Enter")
        page.get_by_text("You said: hello").wait_for()
        page.close()


CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > .9) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent || !e.checkVisibility({opacityProperty: true})) continue;
    if (e.closest('option, optgroup, .gw-hidden, [aria-hidden=true], i')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push(`${e.className || e.tagName}: ${e.innerText.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""

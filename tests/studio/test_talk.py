"""Conversations on the chat page, in a real browser: branches, the list, words, judgements, two models, other sites' pages."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore, Conversation, Feedback
from gptwright.release.feedback import rows

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FIRST, SECOND = "demo-finetune-0123456789", "demo-older-1111111111"


def ready(page: Any) -> None:
    page.get_by_label("Model", exact=True).locator("option").first.wait_for(state="attached")


def say(page: Any, text: str, answers: int = 1) -> None:
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Enter")
    page.get_by_role("button", name="Another answer").nth(answers - 1).wait_for()


def kept(state: Path, table: Any) -> list[Any]:
    store = ControlStore.open(state)
    try:
        with store.session() as session:
            return list(session.scalars(sa.select(table).order_by(table.id)))
    finally:
        store.close()


def test_conversation_when_branched_reloaded_renamed_and_deleted_then_all_is_as_it_was_left(
    open_page: Any, url: str, state: Path
) -> None:
    page = open_page(url)
    ready(page)
    say(page, "the violet question")
    page.get_by_role("button", name="Another answer").click()
    page.get_by_text("Version 2 of 2").wait_for()
    page.get_by_role("button", name="Earlier version").click()
    page.get_by_text("Version 1 of 2").wait_for()
    say(page, "more of it", 2)
    # Another version of the first question: the branch before stays.
    page.get_by_role("button", name="Edit the question").first.click()
    editor = page.get_by_role("textbox", name="Edit the question")
    editor.fill("the indigo question")
    editor.press("Enter")
    page.get_by_text("You said: the indigo question").wait_for()
    assert page.get_by_text("more of it").count() == 0
    page.get_by_role("button", name="Earlier version").first.click()
    page.get_by_text("You said: more of it").wait_for()
    walks = page.locator(".gw-walk > [aria-hidden]")
    assert walks.all_inner_texts() == ["1 / 2", "1 / 2"]
    assert page.evaluate("document.activeElement.dataset.act") in ("back", "on")  # a keyboard stays where it was
    page.reload()
    page.get_by_text("You said: more of it").wait_for()
    assert walks.all_inner_texts() == ["1 / 2", "1 / 2"]
    # Another tab, from the list; words that stand on a hidden branch are found too.
    other = open_page(url)
    ready(other)
    search = other.get_by_role("searchbox", name="Search conversations")
    search.fill("no such words anywhere")
    other.get_by_text("Nothing holds these words").wait_for()
    search.fill("INDIGO question")
    entry = other.get_by_role("button", name="the violet question", exact=True)
    entry.click()
    other.get_by_text("You said: more of it").wait_for()
    assert other.url == page.url
    other.get_by_role("button", name="Rename the violet question").click()
    name = other.get_by_role("textbox", name="New name")
    name.fill("<b>Colours</b>")
    name.press("Enter")
    other.get_by_role("button", name="<b>Colours</b>", exact=True).wait_for()
    other.get_by_role("button", name="Delete <b>Colours</b>").click()
    other.get_by_role("button", name="Delete", exact=True).click()
    other.get_by_role("heading", level=1).wait_for()
    assert other.url.rstrip("/") == url
    assert page.url.rpartition("/")[2] not in [row.id for row in kept(state, Conversation)]
    for file in (state, state.with_name(state.name + "-wal")):
        assert not file.exists() or b"indigo" not in file.read_bytes()
    page.reload()
    page.get_by_text("not there any more").wait_for()


def test_words_when_one_is_chosen_by_keyboard_then_its_alternatives_show_and_the_answer_goes_on_from_one(
    open_page: Any, url: str
) -> None:
    page = open_page(url)
    ready(page)
    say(page, "Tell me a story")
    page.get_by_role("button", name="Word probabilities").press("Enter")
    first = page.locator(".gw-w").first
    first.wait_for()
    page.wait_for_function("document.activeElement.dataset.i === '0'")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(" was")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Alternatives to was")
    dialog.wait_for()
    assert "%" in dialog.inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.dataset.i === '5'")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Go on from").first.wait_for()
    taken = dialog.get_by_role("button", name="Go on from").first.locator(".gw-tok").inner_text()
    dialog.get_by_role("button", name="Go on from").first.press("Enter")
    page.get_by_text(f"Once upon a time there{taken} they all went home.").wait_for()
    page.get_by_text("Went on from a word that you chose").wait_for()
    page.get_by_text("Version 2 of 2").wait_for()
    # What went on has words of its own; one may also end the answer earlier.
    page.get_by_role("button", name="Word probabilities").click()
    page.locator(".gw-w").nth(2).click()
    page.get_by_role("button", name="End the answer here").click()
    page.get_by_text("Version 3 of 3").wait_for()
    assert page.locator(".gw-answer").inner_text() == "Once upon"


def test_judgements_when_consent_is_asked_then_nothing_is_kept_without_and_all_is_taken_back_at_a_word(
    open_page: Any, url: str, state: Path
) -> None:
    page = open_page(url)
    ready(page)
    say(page, "judge me")
    before = len(kept(state, Feedback))
    page.get_by_role("button", name="Good answer").click()
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_text("Nothing is kept").wait_for()
    page.get_by_role("button", name="Bad answer").click()  # it does not ask again
    page.wait_for_timeout(300)
    assert page.get_by_role("button", name="No", exact=True).count() == 0
    assert len(kept(state, Feedback)) == before
    page.get_by_role("button", name="My judgements").click()
    page.get_by_role("button", name="Keep them").click()
    page.get_by_role("button", name="Good answer").click()
    page.locator("[data-act=up][aria-pressed=true]").wait_for()
    page.get_by_role("button", name="Bad answer").click()  # one of the two
    page.locator("[data-act=down][aria-pressed=true]").wait_for()
    page.get_by_role("button", name="Correct this answer").click()
    editor = page.get_by_role("textbox", name="Correct this answer")
    editor.fill("A better answer.")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("corrected by you").wait_for()
    page.get_by_text("Your correction is kept").wait_for()
    thumb, edit = kept(state, Feedback)[before:]
    asked = {"role": "user", "content": "judge me"}
    assert (thumb.kind, thumb.value, thumb.consent, thumb.messages[0]) == ("thumb", {"up": False}, True, asked)
    assert (edit.kind, edit.value, edit.messages[1]["content"]) == (
        "edit",
        {"text": "A better answer."},
        "You said: judge me",
    )
    store = ControlStore.open(state)
    pairs = [row for row in rows(store, "pairs") if row["prompt"] == [asked]]
    store.close()
    assert [row["chosen"][0]["content"] for row in pairs] == ["A better answer."]
    page.get_by_role("button", name="My judgements").click()
    page.get_by_role("button", name="Delete all and keep no more").click()
    page.get_by_text("2 judgements deleted").wait_for()
    assert len(kept(state, Feedback)) == before


def test_texts_when_an_answer_repeats_a_training_document_then_it_is_named_with_its_licence(
    open_page: Any, url: str, serve_pages: Any
) -> None:
    page = open_page(url)
    ready(page)
    say(page, "Tell me a story")
    page.get_by_role("button", name="Training texts in this answer").click()
    found = page.get_by_role("region", name="Training texts in this answer")
    found.wait_for()
    text = found.inner_text()
    for part in (
        "1 passage",
        "Once upon a time there was a small boat",
        "CC-BY-4.0",
        "Tales of the coast",
        "tales · id",
    ):
        assert part in text, part
    say(page, "hello", 2)
    page.get_by_role("button", name="Training texts in this answer").last.click()
    page.get_by_text("No 8 words in a row stand in the 1 training document.").wait_for()
    with serve_pages() as bare:
        other = open_page(bare)
        ready(other)
        other.get_by_text("This server keeps no conversations").wait_for()
        say(other, "Tell me a story")
        other.get_by_role("button", name="Training texts in this answer").click()
        other.get_by_text("There is no corpus on this machine").wait_for()


def test_compare_when_voted_then_the_names_show_only_after_it_and_the_vote_is_kept(
    open_page: Any, url: str, state: Path
) -> None:
    page = open_page(url + "/compare")
    ready_select = page.get_by_label("First model")
    ready_select.wait_for()
    before = len(kept(state, Feedback))
    box = page.get_by_label("Message", exact=True)
    box.fill("Tell me a story")
    box.press("Enter")
    page.get_by_role("button", name="A is better").wait_for()
    sides = page.locator(".gw-sides")
    assert not any(name in sides.inner_html() for name in (FIRST, SECOND))
    a = " ".join(page.get_by_role("log", name="Conversation with A").inner_text().split())
    page.get_by_role("button", name="A is better").click()
    page.get_by_role("button", name="Yes, keep them").click()
    page.get_by_text("Your vote is kept").wait_for()
    assert all(name in sides.inner_text() for name in (FIRST, SECOND))
    (vote,) = kept(state, Feedback)[before:]
    assert (vote.kind, vote.value["vote"], vote.messages[-1]["content"]) == ("vote", "a", "Tell me a story")
    assert " ".join(vote.value["chosen"].split()) in a
    assert vote.model == (SECOND if "Or so" in a else FIRST)
    assert {vote.value["model_a"], vote.value["model_b"]} == {FIRST, SECOND}
    # The next question begins another round.
    box.fill("again")
    box.press("Enter")
    page.get_by_role("button", name="B is better").wait_for()
    assert not any(name in sides.inner_html() for name in (FIRST, SECOND))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_keyboard_when_nothing_else_is_used_then_everything_can_be_reached(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    keys = page.keyboard
    page.wait_for_function("document.activeElement.id === 'gw-input'")
    keys.type("by keys alone")
    keys.press("Enter")
    page.get_by_text("You said: by keys alone").wait_for()
    page.get_by_role("button", name="Another answer").wait_for()
    keys.press("Control+Shift+Enter")
    page.get_by_text("Version 2 of 2").wait_for()
    page.wait_for_function("document.activeElement.id === 'gw-input'")
    keys.press("ArrowUp")
    page.wait_for_function("document.activeElement.closest('.gw-edit') != null")
    keys.press("Escape")
    page.wait_for_function("document.activeElement.id === 'gw-input'")
    keys.press("Control+/")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    keys.press("Escape")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for(state="detached")
    keys.press("Control+k")
    page.wait_for_function("document.activeElement.id === 'gw-search'")
    keys.press("Tab")
    assert page.evaluate("document.activeElement.className") == "gw-entry"
    keys.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Rename by keys alone"
    assert page.evaluate("document.activeElement.getBoundingClientRect().width") > 20  # visible where the focus is
    keys.press("Control+Shift+O")
    page.get_by_role("heading", level=1).wait_for()
    assert page.get_by_text("You said: by keys alone").count() == 0
    # On a phone the list is a drawer: what is behind it cannot be reached, and Escape closes it.
    phone = open_page(url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    ready(phone)
    assert not phone.get_by_role("navigation").is_visible()
    phone.get_by_role("button", name="Show the list").click()
    phone.get_by_role("button", name="by keys alone", exact=True).first.wait_for()
    assert phone.evaluate("document.querySelector('.gw-page').inert")
    phone.keyboard.press("Escape")
    phone.get_by_role("navigation").wait_for(state="hidden")
    assert not phone.evaluate("document.querySelector('.gw-page').inert")


def test_copy_when_pressed_then_the_clipboard_holds_the_markdown_or_the_code(open_page: Any, url: str) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    ready(page)
    say(page, "markdown")
    read = "navigator.clipboard.readText()"
    page.get_by_role("button", name="Copy the code").click()
    page.wait_for_function(f"{read}.then(t => t.startsWith('for piece'))")
    page.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_function(f"{read}.then(t => t.startsWith('Of course.'))")
    assert "```python\n" in page.evaluate(read)


@contextmanager
def another_site(target: str) -> Iterator[str]:
    """A page of another origin on this machine that tries everything on the server."""

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(ATTACK.replace("TARGET", target).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


ATTACK = """<!doctype html><iframe name=f></iframe><form id=form method=post action="TARGET/v1/feedback" target=f enctype="text/plain">
<input name='{"model":"m","kind":"thumb","value":{"up":true},"x":"' value='"}'></form><script>
const found = window.found = {};
const chat = JSON.stringify({model: "production", messages: [{role: "user", content: "evil"}]});
const feedback = JSON.stringify({model: "m", kind: "thumb", value: {up: true}});
async function all() {
  for (const [path, body] of [["/v1/chat/completions", chat], ["/v1/feedback", feedback]]) {
    for (const mode of ["cors", "no-cors"]) {
      try { found[path + mode] = (await fetch("TARGET" + path, {method: "POST", mode, body})).type; } catch { found[path + mode] = "refused"; }
    }
  }
  try { found.delete = (await fetch("TARGET/v1/feedback?user=x", {method: "DELETE"})).type; } catch { found.delete = "refused"; }
  found.image = await new Promise((done) => { const i = new Image(); i.onload = () => done("loaded"); i.onerror = () => done("refused");
    i.src = "TARGET/_nicegui_ws/socket.io/?EIO=4&transport=polling"; });
  found.frame = await new Promise((done) => { const f = document.createElement("iframe"); f.onload = () => { let seen = "refused";
    try { seen = f.contentDocument ? "empty" : "refused"; } catch {} done(seen); }; f.src = "TARGET/"; document.body.append(f); });
  for (const scheme of ["ws"]) found[scheme] = await new Promise((done) => {
    const s = new WebSocket("TARGET/_nicegui_ws/socket.io/?EIO=4&transport=websocket".replace("http", scheme));
    s.onmessage = () => done("open"); s.onerror = () => done("refused"); });
  document.getElementById("form").submit();
  setTimeout(() => found.done = true, 300);
}
onload = all;
</script>"""


def test_other_site_when_its_page_tries_everything_then_the_server_does_nothing_for_it(
    chromium: Any, url: str, state: Path
) -> None:
    def counted() -> str:
        lines = httpx.get(url + "/metrics").text.splitlines()
        return "\n".join(
            line for line in lines if line.startswith("gptwright_requests_total") and '"20' in line and "/v1" in line
        )

    def refused() -> int:
        found = re.search(
            r'gptwright_errors_total\{code="origin_not_allowed"\} (\d+)', httpx.get(url + "/metrics").text
        )
        return int(found[1]) if found else 0

    before, refused_before, rows_before = counted(), refused(), len(kept(state, Feedback))
    with another_site(url) as evil:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(evil)
        page.wait_for_function("window.found?.done")
        found = page.evaluate("window.found")
        context.close()
    assert found["ws"] == "refused"
    assert found["image"] == "refused"
    assert found["delete"] == "refused"
    assert found["/v1/chat/completionscors"] == found["/v1/feedbackcors"] == "refused"
    assert "basic" not in found.values()
    # Four posts, what a browser asks before a deletion, an image, a frame and a form; sockets are not counted.
    assert refused() - refused_before == 8
    assert counted() == before
    assert len(kept(state, Feedback)) == rows_before


def test_answer_when_it_holds_html_then_every_view_of_it_is_inert(open_page: Any, url: str) -> None:
    page = open_page(url)
    ready(page)
    say(page, "<img src=x onerror='window.hacked=7'> <script>window.hacked=8</script>")
    page.get_by_role("button", name="Word probabilities").click()
    page.locator(".gw-w").nth(3).click()
    page.get_by_role("dialog").wait_for()
    assert page.locator(".gw-thread img, .gw-thread script").count() == 0
    page.get_by_role("button", name="New chat").first.click()
    say(page, "hostile")
    for name in ("Training texts in this answer", "Correct this answer"):
        page.get_by_role("button", name=name).click()
        page.wait_for_timeout(250)
        thread = page.locator(".gw-thread")
        assert thread.locator("script, img, iframe, svg, [onclick], [onerror], a[href^=javascript]").count() == 0, name
    page.get_by_role("button", name="Cancel").click()
    say(page, "hostile", 2)
    page.reload()
    page.get_by_role("button", name="Another answer").nth(1).wait_for()
    compare = open_page(url + "/compare")
    box = compare.get_by_label("Message", exact=True)
    compare.get_by_label("First model").wait_for()
    box.fill("hostile")
    box.press("Enter")
    compare.get_by_role("button", name="A is better").wait_for()
    for opened in (page, compare):
        assert opened.locator(".gw-answer script, .gw-answer img, .gw-answer iframe").count() == 0
        assert opened.evaluate("window.hacked === undefined")

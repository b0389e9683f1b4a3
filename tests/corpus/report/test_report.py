"""The report: hostile texts stay text, personal data stays out, numbers are those of the corpus, and the page can be read by all."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.core.errors import UserError
from gptwright.corpus import report, tables
from gptwright.corpus.decide import Part, decide, publish
from gptwright.corpus.mix import MixConfig
from gptwright.corpus.recipes import Recipe, Rule
from gptwright.corpus.report.collect import collect

if TYPE_CHECKING:
    from conftest import Project

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></td></table></style>"
    "\u202e\x07 & \"quoted\" 'text' <b onclick=alert(3)>bold</b> javascript:alert(4) "
)
TAGS = {
    "html", "head", "meta", "title", "style", "body", "a", "div", "header", "p", "h1", "h2", "h3", "bdi", "strong", "ul", "li", "b",
    "span", "svg", "path", "rect", "line", "text", "nav", "main", "section", "table", "caption", "thead", "tbody", "tr", "th", "td",
    "details", "summary", "figure", "figcaption", "footer", "code",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "href", "id", "aria-labelledby", "aria-label", "aria-hidden",
    "tabindex", "role", "scope", "focusable", "viewbox", "fill", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "d", "x",
    "y", "x1", "x2", "y1", "y2", "width", "height", "text-anchor", "open",
}  # fmt: skip
VOID = {"meta"}


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, text; and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def corpus(project: "Project") -> Path:
    """Texts, copies, short ones, personal data that stays, hostile names, and a rule of one's own."""
    rows: list[dict[str, Any]] = [
        {"text": project.prose(i, 5 + i % 30), "url": f"https://site{i % 3}.example/{i}"} for i in range(60)
    ]
    rows += [{"text": project.prose(i)} for i in (1, 1, 1, 2)] + [{"text": f"short {i}"} for i in range(5)]
    rows += [{"text": EVIL + project.prose(7, 3), "url": "https://<svg onload=alert(5)>/"}] * 2
    rows += [{"text": f"ada{i}@example.org, +49 30 901820"} for i in range(4)]
    project.write("a.jsonl", "\n".join(json.dumps(row) for row in rows))
    project.write("x<img src=x onerror=alert(6)>.txt", EVIL + project.prose(8))
    project.write("empty.txt", "")
    project.build(pii="keep", license="LicenseRef-iframe", attribution="<object>")
    recipe = Recipe.load("small")
    rule = Rule("own.long", "n_chars", ">", 400, f"characters; {EVIL}")
    recipe = replace(recipe, name="<embed>", rules=(*recipe.rules, rule))
    parts = [Part(*(tables.part_path(project.out, t, 0) for t in ("docs", "signals")), "own")]
    publish(
        decide(parts, recipe, 0.01, (0.05, "document"), work=project.out / "again", contamination=Leaks()), project.out
    )
    return project.out


class Leaks:
    """An evaluation item with a hostile id."""

    overlap = 0.5

    def part(self, number: int) -> pa.Table:
        return pa.table(
            {
                "doc_row": pa.array([3], pa.int32()),
                "contaminated": pa.array([True]),
                "overlap": pa.array([0.9], pa.float32()),
                "items": pa.array([["<item onload=alert(7)>#1"]]),
            }
        )


@pytest.fixture
def page(project: "Project", tmp_path: Path) -> tuple[str, Page]:
    path = report.write(corpus(project), project.ledger, tmp_path / "report", title=f"GPT {EVIL}", tokens=1_000_000)
    assert path == tmp_path / "report" / "index.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_report_when_texts_are_hostile_then_they_are_text_and_nothing_else(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert not parsed.open, "every tag is closed"
    assert set(parsed.tags) <= TAGS
    assert parsed.attributes <= ATTRIBUTES
    assert "<script>alert(1)</script>" in parsed.text, "the hostile text is shown as it is"
    assert "\u202e" not in text
    assert "\x07" not in text
    assert "<item onload=alert(7)>#1" in parsed.text
    assert "<svg onload=alert(5)>" in parsed.text
    policies = [a["content"] for tag, a in parsed.found if tag == "meta" and a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_report_when_it_is_opened_then_nothing_is_asked_for_elsewhere(page: tuple[str, Page]) -> None:
    text, parsed = page
    links = [attributes["href"] for tag, attributes in parsed.found if tag == "a"]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_report_when_policy_keeps_personal_data_then_excerpts_do_not_show_it(page: tuple[str, Page]) -> None:
    _, parsed = page
    assert "[EMAIL]" in parsed.text
    assert not re.search(r"ada\d@example\.org", parsed.text)
    assert "901820" not in parsed.text
    assert re.search(r"own: \d+ pieces of personal data stay in the text \(policy: keep\)", parsed.text)


def test_report_when_numbers_are_told_then_they_are_the_corpus_s(project: "Project", tmp_path: Path) -> None:
    out = corpus(project)
    facts = collect(out)
    rows = pq.read_table(tables.part_path(out, "decisions", 0)).to_pylist()
    sizes = pq.read_table(tables.part_path(out, "signals", 0))["n_bytes_edited"].to_pylist()
    assert facts.kept.documents == sum(row["verdict"] == "keep" for row in rows)
    assert facts.kept.bytes == sum(size for row, size in zip(rows, sizes, strict=True) if row["verdict"] == "keep")
    of = facts.sources["own"]
    failed = Counter(one["rule"] for row in rows for one in row["failed"])
    first = Counter(row["rule"] for row in rows if row["rule"])
    assert of["failed"] == dict(failed)
    assert of["dropped"] == dict(first)
    assert sum(n * count for n, count in facts.cluster_sizes.items()) == failed["copy.exact"]
    assert sum(row.documents for row in facts.licences) == facts.kept.documents
    assert sum(row.documents for row in facts.languages) == facts.kept.documents
    assert {row.name: row.documents for row in facts.hosts if row.name.startswith("site")} == dict(
        Counter(f"site{i % 3}.example" for i, row in enumerate(rows[:60]) if row["verdict"] == "keep")
    )
    assert facts.items == {"<item onload=alert(7)>#1": 1}
    for measure in facts.measures:
        assert sum(measure.bins) == measure.n
        assert measure.failed == failed[measure.rule.id]
    own = facts.samples["own.long"]
    assert [one.value for one in own if one.fails] == sorted(one.value for one in own if one.fails)
    assert min(one.value for one in own if one.fails) > 400 >= max(one.value for one in own if not one.fails)
    text = report.write(out, None, tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"<strong>{facts.kept.documents:,} of {len(rows):,} documents</strong>" in text
    assert 'id="files"' not in text, "without a ledger nothing is said of files"


def test_report_when_written_twice_then_it_is_the_same(project: "Project", tmp_path: Path) -> None:
    out = corpus(project)
    one, two = (report.write(out, project.ledger, tmp_path / f"{n}.html", mix=MixConfig(temperature=2)) for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_report_when_it_is_read_aloud_then_tables_and_drawings_have_names(page: tuple[str, Page]) -> None:
    _, parsed = page
    assert parsed.tags["table"] == parsed.tags["caption"] > 5
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in parsed.found if tag == "th")
    for tag, attributes in parsed.found:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or (
                attributes.get("role") == "img" and attributes["aria-label"]
            )
    ids = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for tag, a in parsed.found if tag == "a"} <= set(map(str, ids))


def test_report_when_a_source_is_wiped_out_then_the_alarm_stands_at_the_top(project: "Project", tmp_path: Path) -> None:
    for i in range(4):
        project.write(f"{i}.txt", project.prose(i) if i < 1 else f"short {i}")
    project.build()
    text = report.write(project.out, None, tmp_path).read_text(encoding="utf-8")
    warnings = re.search(r'<ul class="warnings".*?</ul>', text, re.DOTALL)
    assert warnings is not None
    assert "text.too_short drops 75% of own (3 of 4 documents)" in warnings[0]
    assert "no licence is known for 100.0 % of the text" in warnings[0]


def test_report_when_the_corpus_is_not_built_then_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not built"):
        report.write(tmp_path, None, tmp_path / "x")


@pytest.mark.browser
@pytest.mark.slow
def test_report_when_shown_on_a_phone_then_nothing_is_cut_off_and_no_script_runs(
    project: "Project", tmp_path: Path
) -> None:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here. Run: sudo apt-get install -y chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    written = report.write(corpus(project), project.ledger, tmp_path / "r.html", title=EVIL)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme in ("light", "dark"):
            view = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
            said: list[str] = []
            view.on("dialog", lambda dialog, said=said: (said.append(dialog.message), dialog.dismiss()))
            view.on("console", lambda message, said=said: said.append(message.text))
            view.on(
                "request",
                lambda request, said=said: said.append(request.url) if request.url != written.as_uri() else None,
            )
            view.goto(written.as_uri())
            assert view.evaluate("document.documentElement.scrollWidth") == 390
            assert said == []
            # WCAG's contrast of text on its ground, of the quietest text there is.
            assert view.evaluate(CONTRAST) >= 4.5
        browser.close()


CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
      if (c !== 'rgba(0, 0, 0, 0)') return c } return 'rgb(255, 255, 255)' };
  return Math.min(...[...document.querySelectorAll('p, span, td, th, a, b, summary, caption, h1, h2')].filter(e => e.innerText).map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) })) }"""

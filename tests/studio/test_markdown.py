"""Whatever a model writes becomes HTML that can do nothing."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.studio.markdown import to_html

ALLOWED = {
    *("p", "em", "strong", "s", "code", "pre", "span", "a", "ul", "ol", "li", "blockquote", "hr", "br"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
PARTS = [
    "<script>",
    "</script>",
    "<img src=x onerror=a()>",
    "![a](http://b/c)",
    "[a](javascript:b)",
    "[a](data:text/html,x)",
]
PARTS += [
    "```html\n",
    "```\n",
    "`",
    "**",
    "\n\n",
    "> ",
    "1. ",
    "<a href='javascript:x'>",
    "&lt;",
    "&#106;avascript:",
    "|",
    "<!--",
    "x ",
]
PARTS += ['[a](http://b "c" onclick="d")', "[a]: javascript:b\n", "<javascript:a>", "<http://a>", '"><script>']


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALLOWED:
            self.faults.append(tag)
        for name, value in attrs:
            if name not in {"href", "rel", "target", "class", "title", "start", "style"}:
                self.faults.append(f"{tag} {name}")
            if name == "href" and not (value or "").startswith(("http:", "https:", "mailto:", "/", "#", "?")):
                scheme = (value or "").partition(":")[0]
                if ":" in (value or "") and scheme.isalpha():
                    self.faults.append(f"href {value}")
            if name == "style" and value not in {"text-align:left", "text-align:right", "text-align:center"}:
                self.faults.append(f"style {value}")


@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_to_html_when_a_model_is_hostile_then_only_harmless_tags_come_out(parts: list[str]) -> None:
    tags = Tags()
    tags.feed(to_html("".join(parts)))
    assert tags.faults == []


@pytest.mark.parametrize("cut", range(0, 130, 7))
def test_to_html_when_text_is_cut_off_anywhere_then_it_renders(cut: int) -> None:
    text = "# Title\n\n1. **one**\n2. `two`\n\n```python\nprint('<b>')\n```\n\n| a | b |\n|---|---|\n| 1 | [x](http://y) |\n"
    assert "<script" not in to_html(text[:cut])


def test_to_html_when_text_is_ordinary_then_it_is_formatted() -> None:
    assert to_html("**a** and `b`") == "<p><strong>a</strong> and <code>b</code></p>\n"
    assert 'class="k"' in to_html("```python\nfor x in y: pass\n```")
    assert "&lt;b&gt;" in to_html("```nonsense\n<b>\n```")

"""A model's Markdown as HTML that cannot do anything: no HTML of its own, no images, no scripted links.

Whatever a model writes is text of a stranger. An image would be a request to another machine, with the conversation in
its address; so images become links. The page's Content-Security-Policy and DOMPurify stand behind this.
"""

import functools
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]


def to_html(text: str) -> str:
    """Render Markdown (CommonMark with tables and strike-through).

    Args:
        text: what a model wrote, perhaps cut off in the middle.

    Returns:
        HTML made of our own tags only.
    """
    return str(_parser().render(text))


@functools.lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "highlight": _highlight})
    parser.enable(["table", "strikethrough"])
    parser.disable("image")
    parser.add_render_rule("link_open", _link)
    return parser


def _link(self: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return str(self.renderToken(tokens, index, options, env))


def _highlight(code: str, language: str, _attributes: str) -> str:
    """Colours by Pygments' classes; unknown languages stay plain."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return str(escapeHtml(code))
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


@functools.lru_cache(maxsize=1)
def code_css() -> str:
    """The colours of code, light and dark."""
    light = HtmlFormatter(style="xcode", nobackground=True).get_style_defs(".gw-answer pre")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".body--dark .gw-answer pre")
    return f"{light}\n{dark}"

"""What the pages share: where they are served from, their head, small parts written as HTML. All text put into HTML is escaped here."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gptwright.core.control import ControlStore
from gptwright.studio.api import Model


@dataclass(frozen=True)
class Site:
    """What a page knows of its server.

    Attributes:
        url: where its API is, as seen on this machine.
        control: where conversations are kept; None keeps none.
        asks_for_key: whether nothing is shown without a key.
        corpus: folder of the corpus that models are trained from, which may not be there.
        secure: whether the API speaks TLS.
    """

    url: str
    control: ControlStore | None = None
    asks_for_key: bool = False
    corpus: Path | None = None
    secure: bool = False


def asset(name: str) -> str:
    """A text file that the package ships."""
    folder = resources.files("gptwright.studio")
    return Path(str(folder)).joinpath("assets", name).read_text(encoding="utf-8")


def head(*styles: str) -> str:
    """Styles and script of a page, for its head."""
    from gptwright.studio.markdown import code_css

    css = "\n".join(asset(name) for name in ("chat.css", "talk.css", *styles))
    return f"<style>{css}\n{code_css()}</style><script>{asset('chat.js')}</script>"


def js(value: Any) -> str:
    """A plain value as a JavaScript literal that cannot end a script."""
    return json.dumps(value).replace("<", "\\u003c")


def esc(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text), quote=True)


def icon(name: str) -> str:
    """A symbol of the font that NiceGUI ships."""
    return f'<i class="material-icons-outlined" aria-hidden="true">{esc(name)}</i>'


def button(act: str, symbol: str, name: str, *, pressed: bool | None = None, label: str = "", off: bool = False) -> str:
    """A button as HTML; the page hears of it by its ``act``.

    Args:
        act: what it does.
        symbol: its icon.
        name: what it is called.
        pressed: of a switch, whether it is on.
        label: visible text beside the icon.
        off: whether it can be used.
    """
    state = "" if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    shown = f"<span>{esc(label)}</span>" if label else ""
    return (
        f'<button type="button" data-act="{esc(act)}" aria-label="{esc(name)}" title="{esc(name)}"{state}{" disabled" if off else ""}>'
        f"{icon(symbol)}{shown}</button>"
    )


def model_options(models: Sequence[Model], chosen: str) -> str:
    """Options of a ``select``, in groups."""
    groups = ""
    for group in ("Own", "Open", "Hosted"):
        inside = "".join(
            f'<option value="{esc(m.id)}"{" selected" if m.id == chosen else ""}>{esc(m.label)}</option>'
            for m in models
            if m.group == group
        )
        groups += f'<optgroup label="{group}">{inside}</optgroup>' if inside else ""
    return groups or "<option>no model</option>"


ACT = "(e) => { const act = gw.act(e); if (act) emit(act); }"
"""Hands over the ``act`` of whatever was clicked, with the turn or line that it is in."""

"""Dialogs of the pages: a name for screen readers, a heading, a row of buttons at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from gptwright.studio.page import esc


@contextmanager
def dialog(title: str, persistent: bool = False) -> Iterator[ui.dialog]:
    """A dialog; what is made inside the block is its content. It is deleted when it closes.

    Args:
        title: its heading and its name.
        persistent: whether only its buttons close it.
    """
    with ui.dialog() as box, ui.card().classes("gw-card"):
        box.props["aria-label"] = title
        if persistent:
            box.props("persistent")
        ui.html(esc(title), tag="h2")
        yield box
    box.on("hide", box.delete)


def choice(name: str, act: Any, kind: str = "gw-quiet") -> ui.button:
    """A button of a dialog.

    Args:
        name: its text.
        act: called when it is pressed.
        kind: gw-strong for what is meant to be done, gw-quiet for all else; gw-danger beside it for what cannot be undone.
    """
    button: ui.button = ui.button(name, on_click=act, color=None).classes(kind).props("flat no-caps")
    return button

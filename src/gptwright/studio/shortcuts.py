"""The keys of the chat page, and the dialog that lists them. What they do is in ``assets/chat.js``."""

from nicegui import ui

from gptwright.studio.dialogs import choice, dialog
from gptwright.studio.page import esc

SHORTCUTS = (
    ("Enter", "send"),
    ("Shift Enter", "a new line"),
    ("Esc", "stop the answer; close what is open"),
    ("↑", "in an empty message: edit the last question"),
    ("Ctrl Shift Enter", "another answer"),
    ("Ctrl Shift O", "new chat"),
    ("Ctrl K", "search conversations"),
    ("Ctrl /", "this list"),
    ("← → Home End", "among words with probabilities"),
)
"""Keys and what they do. On a Mac ⌘ stands for Ctrl too."""


def show_shortcuts() -> None:
    """Show the list."""
    rows = "".join(
        f"<dt>{' '.join(f'<kbd>{esc(key)}</kbd>' for key in keys.split())}</dt><dd>{esc(does)}</dd>"
        for keys, does in SHORTCUTS
    )
    with dialog("Keyboard shortcuts") as box:
        ui.html(f'<dl class="gw-keys">{rows}</dl>', sanitize=False)
        with ui.element("div").classes("gw-row-end"):
            choice("Close", box.close).props("autofocus")
    box.open()

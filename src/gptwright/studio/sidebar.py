"""The list of conversations: search, open, rename, delete."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Sequence

from nicegui import events, ui

from gptwright.studio.book import LISTED, Book, Entry
from gptwright.studio.dialogs import choice, dialog
from gptwright.studio.page import ACT, button, esc, icon

_SEARCH_AFTER_S = 0.15


def when(moment: datetime.datetime, now: datetime.datetime) -> str:
    """Under which heading a conversation stands."""
    days = (now.date() - moment.astimezone(now.tzinfo).date()).days
    return "Today" if days < 1 else "Yesterday" if days == 1 else "This week" if days < 7 else "Earlier"


def list_html(entries: Sequence[Entry], current: str | None, renaming: str | None, searched: str, keeps: bool) -> str:
    """The list.

    Args:
        entries: the newest first.
        current: the one that is open.
        renaming: the one whose name is being changed.
        searched: what was searched for.
        keeps: whether conversations are kept at all.
    """
    if not entries:
        text = (
            "This server keeps no conversations." if not keeps
            else "Nothing holds these words." if searched.strip()
            else "Conversations appear here. They are kept on the machine that serves this page."
        )  # fmt: skip
        return f'<p class="gw-none">{text}</p>'
    now = datetime.datetime.now().astimezone()
    out, under = "", ""
    for entry in entries:
        heading = when(entry.updated, now)
        if heading != under:
            out += ("</ul>" if under else "") + f'<h2>{heading}</h2><ul aria-label="{heading}">'
            under = heading
        out += f'<li data-turn="{esc(entry.id)}"{_here(entry.id == current)}>'
        if entry.id == renaming:
            out += f'<input type="text" class="gw-rename" aria-label="New name" data-enter="renamed" maxlength="80" value="{esc(entry.title)}">'
        else:
            now_open = ' aria-current="page"' if entry.id == current else ""
            out += f'<button type="button" class="gw-entry" data-act="open"{now_open}>{esc(entry.title)}</button>'
            out += button("rename", "edit", f"Rename {entry.title}") + button(
                "delete", "delete", f"Delete {entry.title}"
            )
        out += "</li>"
    more = f'<p class="gw-none">The newest {LISTED}. Search finds older ones.</p>' if len(entries) >= LISTED else ""
    return f"{out}</ul>{more}"


def _here(open_now: bool) -> str:
    return ' class="gw-here"' if open_now else ""


class Sidebar:
    """The list on the page.

    Args:
        on_open: called with the id of a conversation to show.
        on_new: called for a new one.
        on_deleted: called with the id of one that is gone.
        on_foot: called with what was chosen at the foot: compare, theme, shortcuts, judgements.
    """

    def __init__(
        self,
        on_open: Callable[[str], Awaitable[None]],
        on_new: Callable[[], None],
        on_deleted: Callable[[str], None],
        on_foot: Callable[[str], Awaitable[None]],
        brand: str,
    ) -> None:
        self.book = Book(None)
        self.current: str | None = None
        self._on_open, self._on_deleted, self._on_foot = on_open, on_deleted, on_foot
        self._renaming: str | None = None
        self._search = ""
        self._entries: list[Entry] = []
        with ui.element("nav").classes("gw-list").props('id=gw-list aria-label="Conversations"'):
            with ui.element("div").classes("gw-list-head"):
                ui.html(brand, sanitize=False).classes("gw-brand")
                ui.html(button("close-list", "menu_open", "Hide the list"), sanitize=False).classes("gw-flat")
            with ui.button(on_click=on_new, color=None).classes("gw-new").props('flat no-caps aria-label="New chat"'):
                ui.html(f"{icon('add')}<span>New chat</span>", sanitize=False)
            search = ui.element("input").classes("gw-search")
            search.props('id=gw-search type=search placeholder="Search" aria-label="Search conversations"')
            search.on("input", self._searched, js_handler="(e) => emit(e.target.value)")
            self._list = ui.html("", sanitize=False).classes("gw-entries")
            self._list.on("click", self._act, js_handler=ACT)
            self._list.on("keydown", self._act, js_handler="(e) => { const act = gw.enter(e); if (act) emit(act); }")
            foot = ui.html(
                button("compare", "compare", "Compare two models", label="Compare two models")
                + button("judgements", "rate_review", "My judgements", label="My judgements")
                + button("shortcuts", "keyboard", "Keyboard shortcuts", label="Shortcuts")
                + button("theme", "contrast", "Dark or light", label="Dark or light"),
                sanitize=False,
            ).classes("gw-list-foot")
            foot.on("click", self._act, js_handler=ACT)

    async def refresh(self) -> None:
        """Read the list anew."""
        wanted = self._search
        entries = await asyncio.to_thread(self.book.entries, wanted)
        if wanted == self._search:  # else more was typed meanwhile
            self._entries = entries
            self._draw()

    def mark(self, conversation_id: str | None) -> None:
        """Show which conversation is open."""
        self.current = conversation_id
        self._draw()

    def _draw(self) -> None:
        if not self._list.is_deleted:
            self._list.set_content(
                list_html(self._entries, self.current, self._renaming, self._search, self.book.keeps)
            )

    async def _searched(self, event: events.GenericEventArguments) -> None:
        self._search = str(event.args)
        wanted = self._search
        await asyncio.sleep(_SEARCH_AFTER_S)
        if wanted == self._search:
            await self.refresh()

    async def _act(self, event: events.GenericEventArguments) -> None:
        act, which = str(event.args["act"]), str(event.args.get("turn") or "")
        if act == "open":
            await self._on_open(which)
        elif act == "rename":
            self._renaming = which
            self._draw()
            ui.run_javascript("gw.to('.gw-rename', true)")
        elif act in ("renamed", "cancel"):
            self._renaming = None
            if act == "renamed":
                await asyncio.to_thread(self.book.rename, which, str(event.args.get("text") or ""))
            await self.refresh()
        elif act == "delete":
            self._ask(which)
        else:
            await self._on_foot(act)

    def _ask(self, which: str) -> None:
        title = next((entry.title for entry in self._entries if entry.id == which), "")

        async def delete() -> None:
            box.close()
            await asyncio.to_thread(self.book.delete, which)
            self._on_deleted(which)
            await self.refresh()

        with dialog("Delete this conversation?") as box:
            ui.label(f"“{title}” and all its versions are deleted for good.").classes("gw-note")
            with ui.element("div").classes("gw-row-end"):
                choice("Cancel", box.close)
                choice("Delete", delete, "gw-strong gw-danger").props("autofocus")
        box.open()

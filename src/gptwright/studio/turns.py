"""Questions and answers as HTML, and the list of them on the page. What a model wrote goes through ``markdown`` and the page's sanitiser."""

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from gptwright.studio.markdown import to_html
from gptwright.studio.page import ACT, button, esc, icon
from gptwright.studio.tree import Tree, Turn

WAITING = '<span class="gw-wait" aria-hidden="true"><i></i><i></i><i></i></span>'
_ENDED = {"stopped": "Stopped.", "length": "Cut off at the longest answer (see settings)."}


def walk_html(at: int, of: int) -> str:
    """The way between branches; nothing where there is one only."""
    if of < 2:
        return ""
    back = button("back", "chevron_left", "Earlier version", off=at == 0)
    on = button("on", "chevron_right", "Later version", off=at == of - 1)
    said = f'<span class="gw-hidden">Version {at + 1} of {of}</span>'
    return f'<span class="gw-walk">{back}<span aria-hidden="true">{at + 1} / {of}</span>{said}{on}</span>'


def question_tools(at: int, of: int) -> str:
    """What can be done with a question."""
    return (
        button("edit", "edit", "Edit the question")
        + button("copy", "content_copy", "Copy the question")
        + walk_html(at, of)
    )


def answer_tools(turn: Turn, at: int, of: int) -> str:
    """What can be done with an answer, and what is to be said about it."""
    judged = turn.info.get("judged") or {}
    up = judged.get("up")
    parts = [
        walk_html(at, of),
        button("copy", "content_copy", "Copy"),
        button("again", "refresh", "Another answer"),
        button("up", "thumb_up", "Good answer", pressed=up is True),
        button("down", "thumb_down", "Bad answer", pressed=up is False),
        button("correct", "edit", "Correct this answer"),
    ]
    if turn.info.get("words"):
        parts.append(button("words", "bar_chart", "Word probabilities", pressed=False))
    parts.append(button("texts", "menu_book", "Training texts in this answer", pressed=False))
    notes = [_ENDED.get(str(turn.info.get("ended")), "")]
    if dropped := turn.info.get("dropped"):
        notes.append(f"The oldest {dropped} messages no longer fit and were left out.")
    if turn.info.get("from"):
        notes.append("Went on from a word that you chose.")
    parts += [f'<span class="gw-note">{esc(note)}</span>' for note in notes if note]
    return "".join(parts)


def failure_html(message: str) -> str:
    """Why there is no answer, and a way to ask for it again."""
    again = button("again", "refresh", "Try again", label="Try again")
    return f'<div class="gw-error" role="alert"><span>{esc(message)}</span>{again}</div>'


def editor_html(text: str, name: str, act: str, ok: str) -> str:
    """A text to change in place."""
    return (
        f'<div class="gw-edit"><textarea aria-label="{esc(name)}" data-enter="{esc(act)}" rows="1">{esc(text)}</textarea>'
        f'<div><button type="button" class="gw-quiet" data-act="cancel">Cancel</button>'
        f'<button type="button" class="gw-strong" data-act="{esc(act)}">{esc(ok)}</button></div></div>'
    )


def who_html(turn: Turn, name: str) -> str:
    """Whose words they are."""
    mark = f'<span class="gw-note">{icon("edit")} corrected by you</span>' if turn.info.get("corrects") else ""
    return f"<span>{esc(turn.model or name)}</span>{mark}"


class TurnView:
    """A turn on the page. Made inside the element that holds them all.

    Args:
        turn: what to show; an answer may still be empty.
    """

    def __init__(self, turn: Turn) -> None:
        self.turn, self.panel_kind = turn, ""
        asked = turn.role == "user"
        self.box = ui.element("div" if asked else "article").classes("gw-user" if asked else "gw-turn")
        self.box.props(f"data-turn={turn.id}")
        with self.box:
            if asked:
                ui.label("You:").classes("gw-hidden")
                self.text: Any = ui.label(turn.text).classes("gw-bubble")
            else:
                self.who = ui.html(who_html(turn, ""), sanitize=False).classes("gw-who")
                self.text = ui.html(to_html(turn.text) if turn.text else WAITING).classes("gw-answer")
            self.panel = ui.html("", sanitize=False).classes("gw-panel")
            self.tools = ui.html("", sanitize=False).classes("gw-tools")

    def draw(self, text: str) -> None:
        """Show an answer as far as it is."""
        self.text.set_content(to_html(text))

    def name(self, model: str) -> None:
        """Show who answers."""
        self.turn.model = model
        self.who.set_content(who_html(self.turn, model))

    def settle(self, tree: Tree) -> None:
        """Show what can be done with a complete turn."""
        siblings = tree.siblings(self.turn.id)
        place = siblings.index(self.turn.id), len(siblings)
        tools = question_tools(*place) if self.turn.role == "user" else answer_tools(self.turn, *place)
        self.tools.set_content(tools)

    def fail(self, message: str) -> None:
        """Show why there is no answer, or no more of it."""
        self.panel_kind = "failure"
        self.panel.set_content(failure_html(message))

    def open(self, kind: str, content: str) -> None:
        """Show something below the turn; some of it takes the turn's own place."""
        self.panel_kind = kind
        self.box.classes(add=f"gw-with-{kind}", remove=" ".join(f"gw-with-{k}" for k in _KINDS - {kind}))
        self.panel.set_content(content)

    def close(self) -> None:
        """Put away what is shown below the turn."""
        self.panel_kind = ""
        self.box.classes(remove=" ".join(f"gw-with-{kind}" for kind in _KINDS))
        self.panel.set_content("")


_KINDS = frozenset({"edit", "correct", "words", "texts"})


class Thread:
    """The turns of a conversation that are shown.

    Args:
        on_act: called with what was clicked: ``act``, ``turn``, and whatever belongs to it.
    """

    def __init__(self, on_act: Callable[[dict[str, Any]], Any]) -> None:
        self.views: list[TurnView] = []
        # Screen readers hear an answer when it is complete, not at every token.
        self.box = ui.element("div").classes("gw-thread").props('role=log aria-label="Conversation"')

        def heard(event: events.GenericEventArguments) -> Any:
            return on_act(dict(event.args))

        self.box.on("click", heard, js_handler=ACT)
        self.box.on("keydown", heard, js_handler="(e) => { const act = gw.enter(e); if (act) emit(act); }")

    def show(self, tree: Tree, until: str | None = None) -> None:
        """Show a way through a conversation; what stays the same is not touched.

        Args:
            tree: the conversation.
            until: the last turn to show; None: all.
        """
        path = tree.path() if until is None else [*tree.before(until), tree[until]]
        same = 0
        while same < min(len(path), len(self.views)) and self.views[same].turn is path[same]:
            same += 1
        for view in self.views[same:]:
            view.box.delete()
        del self.views[same:]
        for turn in path[same:]:
            self.append(turn)
        for view in self.views:
            view.settle(tree)

    def append(self, turn: Turn) -> TurnView:
        """Put a turn at the end."""
        with self.box:
            view = TurnView(turn)
        self.views.append(view)
        return view

    def find(self, turn_id: str) -> TurnView | None:
        """The view of a turn that is shown."""
        return next((view for view in self.views if view.turn.id == turn_id), None)

    def busy(self, busy: bool) -> None:
        """Whether an answer is on its way."""
        if not self.box.is_deleted:
            self.box.props(f"aria-busy={'true' if busy else 'false'}")

"""Judgements of answers, which a model may later be trained on: kept only where the person agreed, and taken back when they say so."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from gptwright.studio.api import Api, ApiFailure, Message
from gptwright.studio.page import js

_ASKED = (
    "A thumb, a correction or a vote helps to make the next model better. If you agree, it is kept on this server together with the "
    "conversation up to that answer; what looks like personal data is masked. The owner of this server may train a model on it."
)
_REVOKE = (
    "You are asked this once. In the list, under My judgements, you can change your mind and delete what was kept."
)


class Judge:
    """One person's consent, which this browser remembers, and what is kept with it.

    Args:
        api: where judgements go.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.person, self.given = "", ""

    def remember(self, saved: Any) -> None:
        """Take what the browser kept: who, and yes or no."""
        if isinstance(saved, Mapping):
            self.person = str(saved.get("person") or "")[:100]
            self.given = str(saved.get("given")) if saved.get("given") in ("yes", "no") and self.person else ""

    async def allowed(self) -> bool:
        """Whether a judgement may be kept; asks the first time."""
        if not self.given:
            with ui.dialog().props("persistent") as dialog, ui.card().classes("gw-card"):
                dialog.props('aria-label="May judgements be kept?"')
                ui.html("May your judgements be kept?", tag="h2")
                ui.label(_ASKED).classes("gw-help")
                ui.label(_REVOKE).classes("gw-help")
                with ui.element("div").classes("gw-row-end"):
                    for name, value in (("No", "no"), ("Yes, keep them", "yes")):
                        kind = "gw-strong" if value == "yes" else "gw-quiet"
                        chosen = ui.button(name, on_click=lambda value=value: dialog.submit(value), color=None)
                        chosen.classes(kind).props("flat no-caps")
            answer = await dialog
            dialog.delete()
            self._set(str(answer or ""))
        if self.given != "yes":
            ui.notify("Nothing is kept. Change this under My judgements.", timeout=2500)
        return self.given == "yes"

    async def keep(
        self, model: str, kind: str, value: Mapping[str, bool | str], messages: Sequence[Message]
    ) -> int | None:
        """Keep a judgement, if the person agrees.

        Returns:
            Its id; None when nothing was kept.
        """
        if not await self.allowed():
            return None
        try:
            return await self.api.judge(model, kind, value, messages, self.person)
        except ApiFailure as failure:
            ui.notify(str(failure), type="warning")
            return None

    async def take_back(self, judgement: int) -> bool:
        """Delete a judgement; whether it is gone."""
        try:
            await self.api.take_back(judgement)
        except ApiFailure as failure:
            ui.notify(str(failure), type="warning")
            return False
        return True

    def show(self) -> None:
        """The dialog in which one changes one's mind."""

        async def delete() -> None:
            try:
                gone = await self.api.take_all_back(self.person) if self.person else 0
            except ApiFailure as failure:
                ui.notify(str(failure), type="warning")
                return
            dialog.close()
            self._set("no")
            ui.notify(f"{gone} judgement{'s' * (gone != 1)} deleted. Nothing more is kept.", timeout=2500)

        def choose(value: str) -> None:
            dialog.close()
            self._set(value)

        with ui.dialog() as dialog, ui.card().classes("gw-card").props('role=dialog aria-label="My judgements"'):
            ui.html("My judgements", tag="h2")
            state = {"yes": "They are kept.", "no": "None are kept."}.get(self.given, "You were not asked yet.")
            ui.label(state).props("id=gw-consent")
            ui.label(_ASKED).classes("gw-help")
            with ui.element("div").classes("gw-row-end"):
                ui.button("Close", on_click=dialog.close, color=None).classes("gw-quiet").props("flat no-caps")
                if self.given == "yes":
                    ui.button("Keep no more", on_click=lambda: choose("no"), color=None).classes("gw-quiet").props(
                        "flat no-caps"
                    )
                    ui.button("Delete all and keep no more", on_click=delete, color=None).classes(
                        "gw-strong gw-danger"
                    ).props("flat no-caps")
                else:
                    ui.button("Keep them", on_click=lambda: choose("yes"), color=None).classes("gw-strong").props(
                        "flat no-caps"
                    )
        dialog.on("hide", dialog.delete)
        dialog.open()

    def _set(self, given: str) -> None:
        self.given = given
        self.person = self.person or secrets.token_urlsafe(16)
        ui.run_javascript(f"gw.save('consent', {js({'person': self.person, 'given': given})})")

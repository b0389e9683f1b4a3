"""Judgements of answers, which a model may later be trained on: kept only where the person agreed, and taken back when they say so."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from gptwright.studio.api import Api, ApiFailure, Message
from gptwright.studio.dialogs import choice, dialog
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
            with dialog("May your judgements be kept?", persistent=True) as box:
                ui.label(_ASKED).classes("gw-help")
                ui.label(_REVOKE).classes("gw-help")
                with ui.element("div").classes("gw-row-end"):
                    choice("No", lambda: box.submit("no"))
                    choice("Yes, keep them", lambda: box.submit("yes"), "gw-strong")
            self._set(str(await box or ""))
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
            decide("no")
            ui.notify(f"{gone} judgement{'s' * (gone != 1)} deleted. Nothing more is kept.", timeout=2500)

        def decide(given: str) -> None:
            self._set(given)
            box.close()

        with dialog("My judgements") as box:
            state = {"yes": "They are kept.", "no": "None are kept."}.get(self.given, "You were not asked yet.")
            ui.label(state).props("id=gw-consent")
            ui.label(_ASKED).classes("gw-help")
            with ui.element("div").classes("gw-row-end"):
                choice("Close", box.close)
                if self.given == "yes":
                    choice("Keep no more", lambda: decide("no"))
                    choice("Delete all and keep no more", delete, "gw-strong gw-danger")
                else:
                    choice("Keep them", lambda: decide("yes"), "gw-strong")
        box.open()

    def _set(self, given: str) -> None:
        self.given = given
        self.person = self.person or secrets.token_urlsafe(16)
        ui.run_javascript(f"gw.save('consent', {js({'person': self.person, 'given': given})})")

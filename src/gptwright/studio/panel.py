"""The settings of a conversation as a panel: system prompt, sampling, seed."""

from collections.abc import Callable

from nicegui import events, ui

from gptwright.studio.page import esc
from gptwright.studio.settings import CONTROLS, Control, Settings


class SettingsPanel:
    """Made inside the menu that shows it.

    Args:
        get: the settings now.
        put: called with the settings after a change.
    """

    def __init__(self, get: Callable[[], Settings], put: Callable[[Settings], None]) -> None:
        self._get, self._put = get, put
        self._box = ui.element("div").classes("gw-settings").props('role=group aria-label="Settings"')
        self.draw()

    def draw(self) -> None:
        """Show the settings as they are now."""
        self._box.clear()
        now = self._get()
        with self._box:
            ui.html("System prompt", tag="label").props("for=gw-system")
            system = ui.html(
                f'<textarea id="gw-system" rows="3" placeholder="You are brief and kind.">{esc(now.system)}</textarea>',
                sanitize=False,
            )
            system.on("input", self._take("system"), js_handler="(e) => emit(e.target.value)")
            for control in CONTROLS:
                self._slider(control, float(getattr(now, control.field)))
            ui.html("Seed", tag="label").props("for=gw-seed")
            seed = ui.element("input").props('id=gw-seed type=number step=1 placeholder="another answer each time"')
            seed.props["^value"] = "" if now.seed is None else str(now.seed)
            seed.on("input", self._take("seed"), js_handler="(e) => emit(e.target.value)")
            with ui.element("div").classes("gw-row-end"):
                ui.button("Back to the defaults", on_click=self._reset, color=None).classes("gw-quiet").props(
                    "flat no-caps"
                )

    def _take(self, field: str) -> Callable[[events.GenericEventArguments], None]:
        return lambda event: self._put(self._get().with_value(field, event.args))

    def _reset(self) -> None:
        self._put(Settings())
        self.draw()

    def _slider(self, control: Control, value: float) -> None:
        """A slider of the browser itself: Quasar's cannot be reached by the keyboard under its name."""

        def text(value: float) -> str:
            return f"{value:.0f}" if control.whole else f"{value:.2f}"

        with ui.element("div").classes("gw-row"):
            ui.html(esc(control.name), tag="span")
            shown = ui.html(text(value), tag="output")
        slider = ui.element("input").props(
            f'type=range min={control.low} max={control.high} step={control.step} aria-label="{control.name}"'
        )
        # Vue's "^": the attribute, so the value to begin with. As a property, each redraw would put an old value back.
        slider.props["^value"] = str(value)
        ui.label(control.help).classes("gw-help")

        def take(event: events.GenericEventArguments) -> None:
            self._put(self._get().with_value(control.field, event.args))
            shown.set_content(text(float(getattr(self._get(), control.field))))

        slider.on("input", take, js_handler="(e) => emit(e.target.value)")

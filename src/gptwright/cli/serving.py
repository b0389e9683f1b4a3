"""``serve`` and ``studio``: a project's models behind the API, with the pages mounted."""

from functools import partial

from gptwright.cli.verb import Call
from gptwright.core.errors import require
from gptwright.core.progress import say


def serve_project(call: Call, *, pages: bool, browser: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        call: common options.
        pages: mount the studio, if its extra is installed.
        browser: open the page when the server listens.

    Raises:
        UserError: an extra is missing, the address cannot be used, or there is no model yet.
        Refused: the address is reachable from elsewhere and there is no key.
    """
    require("fastapi", "serve")
    require("uvicorn", "serve")
    from gptwright.gateway.resolve import providers
    from gptwright.guard.guard import Guard
    from gptwright.project.detecting import moderator
    from gptwright.project.models import locate
    from gptwright.project.shelf import Shelf
    from gptwright.serve.app import create_app
    from gptwright.serve.run import serve

    project = call.project()
    settings = project.settings
    if not settings.providers:
        locate(project, None)
    mount = None
    if pages:
        require("nicegui", "studio")
        from gptwright.studio.mount import mount as studio_mount

        mount = partial(studio_mount, corpus=project.work / "corpus")
    marks = settings.guard.enabled and settings.guard.watermark
    watermark = project.watermark(create=marks)  # without marking, what was marked before is still recognised
    shelf = Shelf(project, watermark if marks else None)
    shelf.check()
    app = create_app(
        shelf,
        config=settings.serve,
        guard=Guard(settings.guard),
        providers=providers(settings.providers, settings.gateway, project.control),
        gateway=settings.gateway,
        control=project.control,
        mount=mount,
        watermark=watermark,
        moderator=moderator(project),
    )

    def started(url: str) -> None:
        say(f"API:  {url}/v1" + (f"\nChat: {url}/" if pages else "") + "\nCtrl-C stops")
        if browser:
            import webbrowser

            webbrowser.open(url)

    try:
        serve(app, settings.serve, control=project.control, on_start=started)
    finally:
        shelf.close()
        project.control.close()

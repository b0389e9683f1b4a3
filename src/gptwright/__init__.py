"""gptwright: the workshop in which one person or a small team makes their own GPT, all the way.

    import gptwright as gw
    project = gw.Project.open("my-gpt")
    project.run()
    model = gw.load("production")
    for piece in model.chat([{"role": "user", "content": "hello"}], stream=True):
        print(piece, end="")

Importing this costs nothing: the parts load when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptwright.project.load import Model, load
    from gptwright.project.project import Project

__version__ = "0.1.0"
__all__ = ["Model", "Project", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Importing torch takes most of a second; whoever only asks for the version should not pay for it.
    if name == "Project":
        from gptwright.project.project import Project

        return Project
    if name in ("load", "Model"):
        from gptwright.project import load as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

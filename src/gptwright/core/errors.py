"""The errors a person meets: what is wrong, where, and what to do about it.

Each class carries the exit code of the command line (0 done, 1 our fault, 2 the user's, 3 refused, 130 interrupted).
"""

import importlib
from types import ModuleType


class GptwrightError(Exception):
    """Anything that gptwright raises on purpose; without a kinder subclass it is our fault."""

    exit_code = 1


class UserError(GptwrightError):
    """The user can mend it: a bad flag, a bad file, a missing extra.

    Args:
        what: the fault, without a final full stop.
        where: the file, line or key it was found at.
        fix: what to do now.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        text = f"{where}: {what}" if where else what
        end = "" if fix and fix.endswith(("?", "!")) else "."
        super().__init__(f"{text.rstrip('.')}. {fix.rstrip('.')}{end}" if fix else text)


class Refused(UserError):
    """A gate, a licence policy or a guard said no. Nothing was changed."""

    exit_code = 3


class Interrupted(GptwrightError):
    """Ctrl-C or SIGTERM: the work stopped at a point it can continue from."""

    exit_code = 130


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        UserError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise UserError(
            f"this needs {missing}, which is not installed", fix=f'Run: pip install "gptwright[{extra}]"'
        ) from error

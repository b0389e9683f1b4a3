"""A project folder, and everything a person can ask of it. Verbs of the command line are methods here."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gptwright.core.config import load_config
from gptwright.core.errors import UserError
from gptwright.core.ledger import Ledger
from gptwright.core.lock import is_locked
from gptwright.core.stages import Verdict, judge
from gptwright.project.settings import Settings

if TYPE_CHECKING:
    from gptwright.core.control import ControlStore
    from gptwright.infer.watermark import Watermark
    from gptwright.project.pipeline import RunReport
    from gptwright.release.registry import Registry

CONFIG_NAME = "gptwright.toml"


class Project:
    """One folder, one configuration, one ledger. Open it with ``Project.open``, make it with ``Project.create``."""

    def __init__(self, root: Path, settings: Settings, origins: dict[str, str], overrides: Sequence[str]) -> None:
        self.root = root
        self.settings = settings
        self.origins = origins
        self.overrides = tuple(overrides)
        self.executor = "local"  # where the tasks of the corpus run; the command line may say ray
        self.work = root / "work"
        self.state = root / "state"

    @classmethod
    def open(cls, directory: str | Path | None = None, *, overrides: Sequence[str] = ()) -> Self:
        """Open a project.

        Args:
            directory: its folder; None looks for the nearest ``gptwright.toml`` upward from here.
            overrides: ``section.key=value`` texts over the file.

        Raises:
            UserError: no project there, or faults in its configuration.
        """
        root = find_root(Path(directory) if directory is not None else None)
        settings, origins = load_config(Settings, root / CONFIG_NAME, overrides)
        return cls(root, settings, origins, overrides)

    @classmethod
    def create(cls, directory: str | Path, template: str = "starter") -> Self:
        """Make a project folder with a commented configuration."""
        from gptwright.project.template import create

        return cls.open(create(Path(directory), template))

    # Stores

    @contextlib.contextmanager
    def ledger(self, readonly: bool = True) -> Iterator[Ledger]:
        """The ledger; writing takes the stage lock, which the caller holds."""
        with Ledger.open(self.work / "ledger.sqlite", readonly=readonly) as ledger:
            yield ledger

    @property
    def has_ledger(self) -> bool:
        """Whether anything was made here yet."""
        return (self.work / "ledger.sqlite").is_file()

    @cached_property
    def control(self) -> "ControlStore":
        """The control store, in ``state/`` or at ``[serve] database_url``."""
        from gptwright.core.control import ControlStore

        return ControlStore.open(self.settings.serve.database_url or self.state / "control.sqlite")

    @cached_property
    def registry(self) -> "Registry":
        """Releases and aliases."""
        from gptwright.release.registry import Registry

        return Registry(self.control, self.root)

    def watermark(self, *, create: bool = False) -> "Watermark | None":
        """The mark of this project's answers; None if no key was ever made.

        Args:
            create: make a key where there is none.
        """
        from gptwright.infer.watermark import Watermark

        return Watermark.open(self.state / "watermark.key", create=create)

    @property
    def has_control(self) -> bool:
        """Whether there is a control store yet; asking for ``control`` makes one."""
        return bool(self.settings.serve.database_url) or (self.state / "control.sqlite").is_file()

    def config_values(self) -> dict[str, Any]:
        """The resolved configuration as plain values."""
        return self.settings.model_dump(mode="json")

    # Pipeline

    def status(self) -> list[Verdict]:
        """Each stage: fresh, stale and why, running, interrupted, failed or missing. Changes nothing."""
        from gptwright.project.stages import stages_of

        stages = stages_of(self)
        if self.has_ledger:
            with self.ledger() as ledger:
                return judge(stages, self.config_values(), ledger, self.root, busy=is_locked(self.work))
        return [Verdict(stage.name, "missing", ("never made",), "", {}, None) for stage in stages]

    def run(self, stages: Sequence[str] = (), *, dry_run: bool = False, force: bool = False) -> "RunReport":
        """Bring the project up to date.

        Args:
            stages: those wanted, with what stands above them; empty means all.
            dry_run: only say what would run.
            force: run the named stages (or all) although they are fresh.

        Raises:
            UserError: no such stage, or the user can mend what went wrong.
            Interrupted: stopped by Ctrl-C; running again continues.
        """
        from gptwright.project.pipeline import run

        return run(self, stages, dry_run=dry_run, force=force)


def find_root(directory: Path | None) -> Path:
    """The project folder: the one given, or the nearest upward from the current one."""
    if directory is not None:
        if not (directory / CONFIG_NAME).is_file():
            raise UserError(f"no {CONFIG_NAME} there", where=str(directory), fix="Run: gptwright new NAME")
        return directory.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise UserError(
        f"no {CONFIG_NAME} here or above", where=str(here), fix="Run gptwright new NAME, or give --project DIR"
    )

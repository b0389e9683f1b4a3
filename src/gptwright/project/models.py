"""Which model a name means: an id, an alias, ``newest``, a directory, a GGUF file or ``provider:name``. And loaded engines."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptwright.core.errors import UserError
from gptwright.core.ledger import Artifact, Ledger
from gptwright.core.progress import say

if TYPE_CHECKING:
    from gptwright.gateway.serving import ModelInfo
    from gptwright.infer.engine import Engine
    from gptwright.project.project import Project
    from gptwright.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelRef:
    """A model on disk."""

    id: str
    path: Path
    hash: str
    artifact_id: int | None = None


def locate(project: "Project | None", name: str | None) -> ModelRef:
    """Find a model.

    Args:
        project: where ids and aliases are looked up; None allows directories only.
        name: id, alias, directory; None means ``production``, else the newest model.

    Raises:
        UserError: nothing of that name; near names are listed.
    """
    if name is not None and (Path(name) / "config.json").is_file():
        return ModelRef(Path(name).resolve().name, Path(name).resolve(), "")
    if project is None:
        raise UserError(f"no such model: {name or 'production'}", fix="Give a model directory, or --project DIR")
    if name is None or name in alias_names(project):
        found = _by_alias(project, name or "production")
        if found is not None and found.path.is_dir():
            return found
        if found is not None:
            where = str(found.path)
            if name is not None:
                raise UserError(f"the directory of {found.id} is gone", where=where, fix="Run: gptwright run")
            say(f"production ({found.id}) is gone from {where}; taking the newest model instead")
        elif name is not None:
            raise UserError(f"the alias {name} points to nothing", fix="Run: gptwright release promote MODEL")
    if project.has_ledger:
        with project.ledger() as ledger:
            artifact = ledger.find("model", name) if name else _newest(ledger)
        if artifact is not None:
            return ModelRef(artifact.name, project.root / artifact.path, artifact.hash, artifact.id)
    if name is None:
        raise UserError("there is no model yet", where=str(project.root), fix="Run: gptwright run")
    known = [ref.id for ref in all_models(project)]
    raise UserError(f"no such model: {name}", fix=f"Known are: {', '.join(known) or 'none yet; run gptwright run'}")


def _newest(ledger: Ledger) -> Artifact | None:
    """The newest model made here; an imported one only when there is no other."""
    models = ledger.artifacts("model")
    own = [artifact for artifact in models if artifact.stage != "import"]
    return own[-1] if own else models[-1] if models else None


def alias_names(project: "Project") -> list[str]:
    """Aliases of the registry; none in a project that never released anything."""
    if not project.settings.serve.database_url and not (project.state / "control.sqlite").is_file():
        return []
    return sorted(project.registry.aliases())


def _by_alias(project: "Project", alias: str) -> ModelRef | None:
    if alias not in alias_names(project):
        return None
    release = project.registry.current(alias)
    return ModelRef(release.model_id, project.root / release.path, release.model_hash) if release else None


def all_models(project: "Project") -> list[ModelRef]:
    """Every model of the project that is still on disk, newest last."""
    if not project.has_ledger:
        return []
    with project.ledger() as ledger:
        found = {a.name: ModelRef(a.name, project.root / a.path, a.hash, a.id) for a in ledger.artifacts("model")}
    return [ref for ref in found.values() if ref.path.is_dir()]


def locate_base(project: "Project", ledger: Ledger, inputs: Mapping[str, Artifact]) -> ModelRef:
    """What fine-tuning starts from."""
    base = project.settings.finetune.base
    if base == "pretrain":
        artifact = inputs["pretrain"]
        return ModelRef(artifact.name, project.root / artifact.path, artifact.hash, artifact.id)
    place = base_place(project)
    if place is not None or base.startswith("package:"):
        from gptwright.project.exchange import import_into

        artifact = import_into(project, ledger, str(place or base), None)
        return ModelRef(artifact.name, project.root / artifact.path, artifact.hash, artifact.id)
    return locate(project, base)


def base_place(project: "Project") -> Path | None:
    """Where ``[finetune] base`` lies, when it is a path and no name; a relative one begins at the project's folder."""
    place = project.root / project.settings.finetune.base
    return place if place.suffix == ".gguf" or (place / "config.json").is_file() else None


def project_tokenizer(project: "Project") -> "Tokenizer":
    """The project's own tokenizer, or that of its newest model."""
    from gptwright.tokens.tokenizer import Tokenizer

    own = project.work / "tokenizer"
    return Tokenizer.load(own if (own / "tokenizer.json").is_file() else locate(project, None).path)


class Shelf:
    """The models a server answers with. Each is loaded when it is first asked for; the few used last stay in memory."""

    KEPT = 4  # a client that asks for every model in turn must not fill the memory

    def __init__(self, project: "Project") -> None:
        self.project = project
        self._engines: dict[Path, Engine] = {}  # least recently used first
        self._loading: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    def list(self) -> "Sequence[ModelInfo]":
        """All models and aliases."""
        from gptwright.gateway.serving import ModelInfo

        refs = all_models(self.project)
        rows = [ModelInfo(ref.id, int((ref.path / "config.json").stat().st_mtime)) for ref in refs]
        known = {row.id: row.created for row in rows}
        for alias in alias_names(self.project):
            target = _by_alias(self.project, alias)
            if target is not None and target.path.is_dir():
                rows.append(ModelInfo(alias, known.get(target.id, 0), root=target.id))
        return rows

    def engine(self, id_or_alias: str) -> "tuple[str, Engine]":
        """The full id, and the loaded engine.

        Raises:
            UserError: there is no such model.
        """
        from gptwright.infer.choose import open_engine

        if "/" in id_or_alias or "\\" in id_or_alias or id_or_alias in (".", ".."):
            # A request names a model, never a place on this machine's disk.
            raise UserError(f"no such model: {id_or_alias}")
        if id_or_alias not in {row.id for row in self.list()}:
            raise UserError(
                f"no such model: {id_or_alias}", fix=f"Known are: {', '.join(row.id for row in self.list())}"
            )
        ref = locate(self.project, id_or_alias)
        with self._lock:
            loading = self._loading.setdefault(ref.path, threading.Lock())
        with loading:  # others may go on with models that are loaded
            with self._lock:
                engine = self._engines.pop(ref.path, None)
            if engine is None or engine.closed:  # one that stopped after a fault is loaded anew
                engine = open_engine(ref.path, self.project.settings.serve.engine)
            with self._lock:
                self._engines[ref.path] = engine
                self._make_room()
        return ref.id, engine

    def _make_room(self) -> None:
        idle = [path for path, engine in self._engines.items() if engine.load_now == (0, 0)]
        for path in idle[: max(0, len(self._engines) - self.KEPT)]:
            self._engines.pop(path).close()

    def close(self) -> None:
        """Stop all engines."""
        for engine in self._engines.values():
            engine.close()

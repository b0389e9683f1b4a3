"""The models a server answers with: loaded when they are first asked for, adapters beside the base that they share.

A model that was tuned with an adapter, and every adapter of ``[serve] adapters``, is answered by its base's engine, in the same steps as the
base itself. Names mean what they meant when a request came: a promoted release is loaded beside the former, whose streams end in peace.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.progress import say
from gptwright.project.models import ModelRef, alias_names, all_models, by_alias, locate

if TYPE_CHECKING:
    from gptwright.gateway.serving import ModelInfo
    from gptwright.infer.adapted import Adapted
    from gptwright.infer.engine import Engine
    from gptwright.infer.watermark import Watermark
    from gptwright.project.project import Project

_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Place:
    """What a name means.

    Args:
        id: the full name.
        engine: the directory that an engine is opened from.
        adapter: the PEFT directory on top of it; None: the model itself.
        tokenizer: where the adapter's own tokenizer lies; None: it has the base's.
        parent: the base's name.
        created: Unix time, seconds.
        owner: who made it.
    """

    id: str
    engine: Path
    adapter: Path | None = None
    tokenizer: Path | None = None
    parent: str | None = None
    created: int = 0
    owner: str = "gptwright"


@dataclass(frozen=True)
class _View:
    engine: "Engine"
    stamp: _Stamp
    adapted: "Adapted"


class Shelf:
    """The models of a project; the few used last stay in memory.

    Args:
        project: where they are.
        watermark: marks all that they write; None: nothing is marked.
    """

    KEPT = 4  # a client that asks for every model in turn must not fill the memory

    def __init__(self, project: "Project", watermark: "Watermark | None" = None) -> None:
        self.project, self.watermark = project, watermark
        self._engines: dict[Path, Engine] = {}  # least recently used first
        self._views: dict[str, _View] = {}
        self._loading: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Look at all adapters of ``[serve] adapters`` before the first request.

        Raises:
            UserError: one is no adapter, does not fit its base, or has a name that is taken; or there is no such draft model.
        """
        from gptwright.infer.adapters import Adapter
        from gptwright.model.io import read_config

        config = self.project.settings.serve
        if config.adapters and config.engine == "openvino":
            raise UserError("OpenVINO GenAI has no adapters", where="[serve] adapters", fix="Set engine = builtin")
        if config.draft:
            locate(self.project, config.draft)
        taken = {ref.id for ref in all_models(self.project)} | set(alias_names(self.project))
        for name in config.adapters:
            where = f"[serve] adapters.{name}"
            if name in taken:
                raise UserError("a model or alias has that name already", where=where, fix="Choose another name")
            try:
                place = self._named(name)
                assert place.adapter is not None
                Adapter.load(place.adapter, read_config(place.engine), 1)
            except UserError as error:
                raise UserError(
                    error.what, where=f"{where}: {error.where or ''}".rstrip(": "), fix=error.fix
                ) from error

    def list(self) -> "Sequence[ModelInfo]":
        """All models, adapters and aliases."""
        from gptwright.gateway.serving import ModelInfo

        places = {place.id: place for place in self._places()}
        rows = [ModelInfo(p.id, p.created, p.owner, parent=p.parent) for p in places.values()]
        for alias in alias_names(self.project):
            target = by_alias(self.project, alias)
            if target is not None and target.path.is_dir():
                place = places.get(target.id) or self._own(target)
                rows.append(ModelInfo(alias, place.created, root=target.id, parent=place.parent))
        return rows

    def engine(self, id_or_alias: str) -> "tuple[str, Engine | Adapted]":
        """The full id, and a loaded engine.

        Raises:
            UserError: there is no such model.
        """
        if "/" in id_or_alias or "\\" in id_or_alias or id_or_alias in (".", ".."):
            # A request names a model, never a place on this machine's disk.
            raise UserError(f"no such model: {id_or_alias}")
        known = [row.id for row in self.list()]
        if id_or_alias not in known:
            raise UserError(f"no such model: {id_or_alias}", fix=f"Known are: {', '.join(known)}")
        adapters = self.project.settings.serve.adapters
        place = self._named(id_or_alias) if id_or_alias in adapters else self._own(locate(self.project, id_or_alias))
        with self._lock:
            loading = self._loading.setdefault(place.engine, threading.Lock())
        with loading:  # others may go on with models that are loaded
            with self._lock:
                engine = self._engines.pop(place.engine, None)
            if engine is None or engine.closed:  # one that stopped after a fault is loaded anew
                engine = self._open(place.engine)
            with self._lock:
                self._engines[place.engine] = engine
                self._make_room()
            return place.id, engine if place.adapter is None else self._adapted(engine, place, place.adapter)

    def close(self) -> None:
        """Stop all engines."""
        for engine in self._engines.values():
            engine.close()

    # What there is

    def _places(self) -> Sequence[_Place]:
        places = [self._own(ref) for ref in all_models(self.project)]
        for name in self.project.settings.serve.adapters:
            with contextlib.suppress(UserError, OSError):  # deleted while the server runs: gone from the list
                places.append(self._named(name))
        return places

    def _own(self, ref: ModelRef) -> _Place:
        """A model of the project: its merged weights, or its base and its adapter."""
        from gptwright.model.lora import is_adapter, read_base

        created = int((ref.path / "config.json").stat().st_mtime)
        plain = _Place(ref.id, ref.path, created=created, owner="import" if ref.imported else "gptwright")
        config, adapter = self.project.settings.serve, ref.path / "adapter"
        if not config.share_base or config.engine == "openvino" or not is_adapter(adapter):
            return plain
        try:
            base = read_base(adapter).resolve()
        except UserError:  # its base was deleted; the merged weights need none
            return plain
        return _Place(ref.id, base, adapter, ref.path, base.name, created)

    def _named(self, name: str) -> _Place:
        """An adapter of ``[serve] adapters``.

        Raises:
            UserError: it is none, or its base is not here.
        """
        from gptwright.model.lora import CONFIG, is_adapter, read_base

        folder = self.project.root / self.project.settings.serve.adapters[name]
        if not is_adapter(folder):
            raise UserError("is no PEFT directory", where=str(folder), fix=f"It must hold {CONFIG}")
        base = read_base(folder).resolve()
        tokenizer = folder if (folder / "tokenizer.json").is_file() else None
        return _Place(name, base, folder, tokenizer, base.name, int((folder / CONFIG).stat().st_mtime))

    # What is loaded

    def _open(self, folder: Path) -> "Engine":
        from gptwright.infer.choose import open_engine

        wanted = self.project.settings.serve.engine
        if wanted == "auto" and any(p.engine == folder and p.adapter is not None for p in self._places()):
            wanted = "builtin"  # the other has no adapters
        engine = open_engine(folder, wanted, self.watermark)
        if draft := self.project.settings.serve.draft:
            small = locate(self.project, draft).path
            try:
                if small != folder:
                    engine.draft(small)
            except UserError as error:  # another model of the project may have the right tokenizer
                say(f"{folder.name} is served without draft: {error}")
        return engine

    def _adapted(self, engine: "Engine", place: _Place, adapter: Path) -> "Adapted":
        """An adapter on its base's engine, read anew when its files changed."""
        from gptwright.infer.adapted import Adapted
        from gptwright.tokens.tokenizer import Tokenizer

        stamp = _stamp(adapter)
        view = self._views.get(place.id)
        if view is None or view.engine is not engine or view.stamp != stamp:
            engine.add_adapter(place.id, adapter)
            tokenizer = None if place.tokenizer is None else Tokenizer.load(place.tokenizer)
            view = self._views[place.id] = _View(
                engine, stamp, Adapted(engine, place.id, tokenizer, place.parent or "")
            )
        return view.adapted

    def _make_room(self) -> None:
        idle = [path for path, engine in self._engines.items() if engine.load_now == (0, 0)]
        for path in idle[: max(0, len(self._engines) - self.KEPT)]:
            closed = self._engines.pop(path)
            closed.close()
            self._views = {name: view for name, view in self._views.items() if view.engine is not closed}


def _stamp(folder: Path) -> _Stamp:
    """What changes when an adapter is written anew."""
    from gptwright.model.lora import CONFIG, WEIGHTS

    stats: list[Any] = [(folder / name).stat() for name in (CONFIG, WEIGHTS)]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)

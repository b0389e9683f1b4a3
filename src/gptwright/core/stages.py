"""Stages and staleness. A stage's key is the hash of what it depends on: its inputs' hashes, the configuration keys it reads,
its source code, the libraries it names and the outside files it was shown. Same key, same result: so it is not run again.
"""

import ast
import contextlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import cache_dir, write_json
from gptwright.core.hashing import b2, b2_json
from gptwright.core.ledger import Artifact, Ledger


@dataclass(frozen=True)
class StageResult:
    """What a stage made. ``parents`` beyond the stage's inputs, such as a base model."""

    kind: str
    name: str
    path: str
    hash: str
    meta: dict[str, Any] = field(default_factory=dict)
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Args:
        name: as the command line calls it.
        inputs: stages whose artifacts it reads.
        config: dotted configuration keys or sections it reads; nothing else of the configuration can make it stale.
        code: modules whose source decides the result. Docstrings and comments do not count.
        libraries: distributions whose version decides the result.
        outside: fingerprint of what lies outside ``work/`` (source files), or None.
        proof: file, relative to the project, that the stage writes last; without it its result is not there.
    """

    name: str
    inputs: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    outside: Callable[[], Mapping[str, str]] | None = None
    proof: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a stage must run, and why."""

    stage: str
    state: str  # fresh | stale | missing | running | failed | interrupted
    reasons: tuple[str, ...]
    key: str
    parts: dict[str, Any]
    artifact: Artifact | None


def judge(
    stages: Sequence[Stage], config: Mapping[str, Any], ledger: Ledger, root: Path, *, busy: bool = False
) -> list[Verdict]:
    """Say of each stage whether it is fresh, in order. A stage downstream of a stale one is stale too.

    Args:
        stages: in order; inputs stand before their users.
        config: the resolved configuration as nested plain values.
        busy: another process holds the stage lock, so the last run may be under way.
    """
    verdicts: dict[str, Verdict] = {}
    every = ledger.runs()
    under_way = every[-1].id if busy and every and every[-1].state == "running" else None
    for stage in stages:
        parts = key_parts(stage, config, {name: v.artifact for name, v in verdicts.items()})
        key = b2_json(parts)
        artifact = ledger.latest_of_stage(stage.name)
        upstream = [name for name in stage.inputs if verdicts[name].state != "fresh"]
        reasons: tuple[str, ...]
        if artifact is None:
            state, reasons = "missing", ("never made",)
        elif not (root / artifact.path).exists():
            state, reasons = "missing", (f"{artifact.path} is gone",)
        elif stage.proof is not None and not (root / stage.proof).exists():
            state, reasons = "missing", (f"{stage.proof} is gone",)
        elif upstream:
            state, reasons = "stale", tuple(f"{name} is not fresh" for name in upstream)
        elif artifact.key != key:
            state, reasons = "stale", tuple(differences(artifact.meta.get("made_from", {}), parts))
        else:
            state, reasons = "fresh", ()
        runs = [run for run in every if run.stage == stage.name]
        if runs and runs[-1].id == under_way:
            state, reasons = "running", (f"run {under_way} is under way", *reasons)
        elif runs and runs[-1].state in _STATES:
            # Also over an artifact that looks fresh: the later run may have changed what the artifact's path holds.
            how = _STATES[runs[-1].state]
            if runs[-1].state != "failed":
                how += (
                    "; it continues"
                    if runs[-1].config.get("key") == key
                    else "; settings changed since, so it begins anew"
                )
            reasons = (f"last run {runs[-1].id} {how}", *reasons)
            state = "failed" if runs[-1].state == "failed" else "interrupted"
        verdicts[stage.name] = Verdict(stage.name, state, reasons, key, parts, artifact)
    return list(verdicts.values())


_STATES = {"running": "was killed", "failed": "failed", "interrupted": "was interrupted"}


def key_parts(stage: Stage, config: Mapping[str, Any], made: Mapping[str, Artifact | None]) -> dict[str, Any]:
    """Everything a stage's result depends on, by name, so that a difference can be explained."""
    inputs = {name: artifact.hash if (artifact := made.get(name)) else None for name in stage.inputs}
    return {
        "inputs": inputs,
        "config": {key: lookup(config, key) for key in stage.config},
        "code": code_version(stage.code),
        "libraries": {name: _version(name) for name in stage.libraries},
        "outside": dict(stage.outside()) if stage.outside else {},
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Why a stage is stale, in words."""
    reasons: list[str] = []
    for name, value in new.get("inputs", {}).items():
        if old.get("inputs", {}).get(name) != value:
            reasons.append(f"{name} was made anew")
    for key, value in new.get("config", {}).items():
        former = old.get("config", {}).get(key)
        if former != value:
            reasons += _changed(key, former, value)
    if old.get("code") != new.get("code"):
        reasons.append("gptwright's code for it changed")
    for name, value in new.get("libraries", {}).items():
        if (former := old.get("libraries", {}).get(name)) != value:
            reasons.append(f"{name} {former} became {value}" if former else f"{name} {value} counts now")
    before, after = old.get("outside", {}), new.get("outside", {})
    for name in after.keys() | before.keys():
        if before.get(name) != after.get(name):
            word = "is new" if name not in before else "is gone" if name not in after else "changed"
            reasons.append(f"{name} {word}")
    return reasons or ["made by an older gptwright"]


def _changed(key: str, old: Any, new: Any) -> list[str]:
    """A section that came or went is named; its values are in the file."""
    if old is None and isinstance(new, dict):
        return [f"{key} is new"]
    if new is None and isinstance(old, dict):
        return [f"{key} is gone"]
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            r
            for k in sorted(old.keys() | new.keys())
            if old.get(k) != new.get(k)
            for r in _changed(f"{key}.{k}", old.get(k), new.get(k))
        ]
    return [f"{key}: {old} became {new}"]


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in nested mappings, None where absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@cache
def code_version(modules: tuple[str, ...]) -> str:
    """Hash of the modules' syntax trees without docstrings: a comment or a reworded docstring makes nothing stale.

    Args:
        modules: dotted names; none of gptwright's own is imported.
    """
    known = _known_trees()
    before = len(known)
    digests: list[str] = []
    for name in sorted(modules):
        path = _file_of(name)
        info = path.stat()
        key = f"{path}:{info.st_size}:{info.st_mtime_ns}"
        if key not in known:
            known[key] = b2(name + _tree(path))
        digests.append(known[key])
    if len(known) != before:
        _remember_trees(known)
    return b2("\n".join(digests))


def _file_of(module: str) -> Path:
    if not module.startswith("gptwright."):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise LookupError(f"stage names a module that does not exist: {module}")
        return Path(spec.origin)
    root = Path(__file__).parents[1]
    place = root.joinpath(*module.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    raise LookupError(f"stage names a module that does not exist: {module}")


def _tree(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.unparse(tree)


def _cache_file() -> Path | None:
    folder = cache_dir()
    return folder / f"code-{sys.version_info.major}.{sys.version_info.minor}.json" if folder is not None else None


@cache
def _known_trees() -> dict[str, str]:
    """Hashes by file, size and time, from former processes: parsing all of the code takes a second."""
    path = _cache_file()
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return found


def _remember_trees(known: dict[str, str]) -> None:
    if len(known) > 5000:  # of many versions; the next process begins anew
        known.clear()
    if (path := _cache_file()) is not None:
        with contextlib.suppress(OSError, UserError):  # it is a cache
            write_json(path, known)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"

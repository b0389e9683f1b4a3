"""Stages and staleness. A stage's key is the hash of what it depends on: its inputs' hashes, the configuration keys it reads,
its source code, the libraries it names and the outside files it was shown. Same key, same result: so it is not run again.
"""

import ast
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

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
    """

    name: str
    inputs: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    outside: Callable[[], Mapping[str, str]] | None = None


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
    """Hash of the modules' syntax trees without docstrings: a comment or a reworded docstring makes nothing stale."""
    trees: list[str] = []
    for name in sorted(modules):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise LookupError(f"stage names a module that does not exist: {name}")
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and ast.get_docstring(node, clean=False) is not None
            ):
                node.body = node.body[1:]
        trees.append(name + ast.unparse(tree))
    return b2("\n".join(trees))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"

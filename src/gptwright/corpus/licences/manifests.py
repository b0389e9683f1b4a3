"""The licence that a project's package manifest states: pyproject.toml, setup.cfg, package.json, Cargo.toml and their like."""

import configparser
import json
import re
import tomllib
from collections.abc import Callable
from typing import Any

from gptwright.corpus.licences.names import normalise

LARGEST = 1 << 20


def manifest_licence(name: str, text: str) -> str | None:
    """The SPDX expression that a manifest states.

    Args:
        name: the file's name without its folders.
        text: its content.

    Returns:
        None when it is no manifest, broken, states none, or states one that is not understood.
    """
    reader = _READERS.get(name)
    if reader is None or len(text) > LARGEST:
        return None
    try:
        stated = reader(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, configparser.Error):
        return None
    return normalise(stated) if isinstance(stated, str) else None


def _pyproject(text: str) -> str | None:
    loaded = tomllib.loads(text)
    project = loaded.get("project", {})
    stated = project.get("license", loaded.get("tool", {}).get("poetry", {}).get("license"))
    if isinstance(stated, dict):
        stated = stated.get("text")
    if isinstance(stated, str):
        return stated
    return _classifier(project.get("classifiers", []))


def _classifier(classifiers: Any) -> str | None:
    found = [str(one).rpartition("::")[2].strip() for one in classifiers if str(one).startswith("License ::")]
    found = [one for one in found if one != "OSI Approved"]
    return found[0] if len(found) == 1 else None


def _setup_cfg(text: str) -> str | None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    metadata = parser["metadata"]
    return metadata.get("license") or _classifier(metadata.get("classifiers", "").splitlines())


def _setup_py(text: str) -> str | None:
    match = re.search(r"\blicen[sc]e\s*=\s*([\"'])([^\"'\n]{2,100})\1", text)
    return match[2] if match else None


def _package_json(text: str) -> str | None:
    loaded = json.loads(text)
    stated = loaded.get("license", loaded.get("licenses"))
    if isinstance(stated, list):
        names = [one.get("type") if isinstance(one, dict) else one for one in stated]
        return " OR ".join(f"({normalise(name)})" for name in names) if names else None
    return stated.get("type") if isinstance(stated, dict) else stated


def _cargo(text: str) -> str | None:
    loaded = tomllib.loads(text)
    stated = loaded.get("package", {}).get("license") or loaded.get("workspace", {}).get("package", {}).get("license")
    return stated if isinstance(stated, str) else None


def _composer(text: str) -> str | None:
    stated = json.loads(text).get("license")
    return " OR ".join(stated) if isinstance(stated, list) else stated


def _description(text: str) -> str | None:
    match = re.search(r"^License:\s*(.+)$", text, re.MULTILINE)
    return match[1].partition(" + file ")[0].replace(" (>= ", "-").replace(")", "+") if match else None


def _pom(text: str) -> str | None:
    match = re.search(r"<licenses>\s*<license>.*?<name>([^<]{2,100})</name>", text, re.DOTALL)
    return match[1] if match else None


_READERS: dict[str, Callable[[str], str | None]] = {
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "setup.py": _setup_py,
    "package.json": _package_json,
    "Cargo.toml": _cargo,
    "composer.json": _composer,
    "DESCRIPTION": _description,
    "pom.xml": _pom,
}
MANIFESTS = frozenset(_READERS)

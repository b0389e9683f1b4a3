"""The licence of an installed Python distribution, as its own metadata state it."""

import importlib.metadata
import re

from gptwright.corpus.licences.base import Licence
from gptwright.corpus.licences.names import normalise
from gptwright.corpus.licences.texts import READ_CHARS, licence_of_text


def package_licence(distribution: importlib.metadata.Distribution) -> Licence:
    """Read the licence of an installed distribution.

    The order is that of trust: License-Expression, License, classifiers, then the text of a LICENSE file, which also decides
    between the variants of a name such as "BSD".
    """
    meta = _fields(distribution)
    attribution = _attribution(distribution)

    def found(identity: str, confidence: float, evidence: str) -> Licence:
        return Licence(identity, "package-metadata", confidence, evidence, attribution)

    if expression := normalise(meta.get("License-Expression", [""])[0]):
        return found(expression, 1.0, f"License-Expression: {expression}")
    text = _license_file(distribution)
    by_text = licence_of_text(text, "package-metadata", "the LICENSE file") if text else None
    names = [("License", meta.get("License", [""])[0])]
    names += [("Classifier", c.rpartition("::")[2]) for c in meta.get("Classifier", []) if c.startswith("License ::")]
    for field, name in names:
        name = name.strip()
        spdx = normalise(name) if len(name) <= 200 else None
        if spdx is None:
            continue
        if by_text and by_text.id and _narrows(spdx, by_text.id):
            return found(by_text.id, 0.9, f"{field}: {name}, and the LICENSE file")
        return found(spdx, 0.5 if spdx.startswith("LicenseRef-") else 0.9, f"{field}: {name}")
    if by_text:
        return found(str(by_text.id), min(by_text.confidence, 0.7), by_text.evidence)
    return Licence(None, "none", 0.0, "its metadata name no licence", attribution)


def _narrows(named: str, by_text: str) -> bool:
    """Whether a licence's text says which of a family is meant by a name such as "BSD" or "GPL"."""
    families: dict[str, tuple[str, ...]] = {
        "LicenseRef-BSD": ("BSD-",),
        "LicenseRef-MPL": ("MPL-",),
        "LicenseRef-ZPL": ("ZPL-",),
    }
    families |= {"LicenseRef-GPL": ("GPL-",), "LicenseRef-LGPL": ("LGPL-",), "LicenseRef-AGPL": ("AGPL-",)}
    families |= {"LicenseRef-GNU": ("GPL-", "LGPL-", "AGPL-")}
    return by_text.startswith(families.get(named, ("-",)))


def _fields(distribution: importlib.metadata.Distribution) -> dict[str, list[str]]:
    meta = distribution.metadata
    return {key: [str(value) for value in meta.get_all(key) or []] for key in dict.fromkeys(meta)}


def _license_file(distribution: importlib.metadata.Distribution) -> str:
    for file in distribution.files or []:
        if re.match(r"(licen[sc]e|copying)([.-]\w+)?$", file.name, re.IGNORECASE) and ".dist-info" in str(file):
            try:
                return file.read_text(encoding="utf-8")[:READ_CHARS]
            except (OSError, UnicodeDecodeError):
                continue
    return ""


def _attribution(distribution: importlib.metadata.Distribution) -> str:
    meta = _fields(distribution)
    author = next((meta[key][0] for key in ("Author", "Author-email", "Maintainer") if meta.get(key)), "")
    links = meta.get("Home-page") or [link.partition(", ")[2] for link in meta.get("Project-URL", [])]
    parts = [f"{meta['Name'][0]} {distribution.version}", author.strip(), *links[:1]]
    return ", ".join(part for part in parts if part)

"""The licence of an installed Python distribution, as its own metadata state it, in SPDX words with a degree of confidence."""

import importlib.metadata
import re
from dataclasses import dataclass

_WORDS = (  # (pattern in a licence's free-text name or classifier, SPDX id); ambiguous names stay ambiguous
    (r"apache.{0,20}2|^apache( software license)?$", "Apache-2.0"),
    (r"^(the )?mit( license)?( \(mit\))?$|mit license", "MIT"),
    (r"bsd.{0,3}3|3.clause bsd|new bsd|modified bsd", "BSD-3-Clause"),
    (r"bsd.{0,3}2|2.clause bsd|simplified bsd", "BSD-2-Clause"),
    (r"^(the )?bsd( license)?$", "LicenseRef-BSD"),
    (r"isc", "ISC"),
    (r"mozilla.{0,30}2\.0|mpl.{0,3}2", "MPL-2.0"),
    (r"lgpl.*v?3|lesser general.*v3", "LGPL-3.0-or-later"),
    (r"agpl|affero", "AGPL-3.0-or-later"),
    (r"gpl.*v?3|general public license v3", "GPL-3.0-or-later"),
    (r"gpl.*v?2|general public license v2", "GPL-2.0-or-later"),
    (r"unlicense", "Unlicense"),
    (r"cc0|public domain dedication", "CC0-1.0"),
    (r"public domain", "LicenseRef-public-domain"),
    (r"cc.by.nc.sa.4|attribution.noncommercial.sharealike 4", "CC-BY-NC-SA-4.0"),
    (r"cc.by.nc.4|attribution.noncommercial 4", "CC-BY-NC-4.0"),
    (r"cc.by.sa.4|attribution.sharealike 4", "CC-BY-SA-4.0"),
    (r"cc.by.4|attribution 4", "CC-BY-4.0"),
    (r"python software foundation|^psf", "PSF-2.0"),
)
_TEXTS = (  # (what only this licence's text says, SPDX id)
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (r"Redistribution and use in source and binary forms.*Neither the name", "BSD-3-Clause"),
    (r"Redistribution and use in source and binary forms", "BSD-2-Clause"),
    (r"Permission to use, copy, modify, and(/or)? distribute this software for any purpose", "ISC"),
    (r"Mozilla Public License Version 2\.0", "MPL-2.0"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "AGPL-3.0-or-later"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "LGPL-3.0-or-later"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "GPL-3.0-or-later"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "GPL-2.0-or-later"),
    (r"CC0 1\.0 Universal", "CC0-1.0"),
)


@dataclass(frozen=True)
class Licence:
    """A licence, where it was read, and how sure that is (0 to 1)."""

    id: str | None
    source: str
    confidence: float
    evidence: str
    attribution: str | None = None


def package_licence(distribution: importlib.metadata.Distribution) -> Licence:
    """Read the licence of an installed distribution.

    The order is that of trust: License-Expression, License, classifiers, then the text of a LICENSE file, which also decides
    between the variants of a name such as "BSD".
    """
    meta = _fields(distribution)
    attribution = _attribution(distribution)

    def found(identity: str, confidence: float, evidence: str) -> Licence:
        return Licence(identity, "package-metadata", confidence, evidence, attribution)

    if expression := meta.get("License-Expression", [""])[0]:
        return found(expression.strip(), 1.0, f"License-Expression: {expression.strip()}")
    text = _license_file(distribution)
    by_text = next((spdx for pattern, spdx in _TEXTS if re.search(pattern, text, re.DOTALL | re.IGNORECASE)), None)
    names = [("License", meta.get("License", [""])[0])]
    names += [("Classifier", c.rpartition("::")[2]) for c in meta.get("Classifier", []) if c.startswith("License ::")]
    for field, name in names:
        name = name.strip()
        if not name or len(name) > 200:
            continue
        spdx = spdx_id(name)
        if spdx == "LicenseRef-BSD" and by_text in ("BSD-3-Clause", "BSD-2-Clause"):
            return found(by_text, 0.9, f"{field}: {name}, and the LICENSE file")
        if spdx is not None:
            return found(spdx, 0.5 if spdx.startswith("LicenseRef-") else 0.9, f"{field}: {name}")
    if by_text:
        return found(by_text, 0.7, "the text of the LICENSE file")
    return Licence(None, "none", 0.0, "its metadata name no licence", attribution)


def spdx_id(name: str) -> str | None:
    """The SPDX id of a licence's usual name, None when the name is not known."""
    import license_expression  # reads its licence list (20 ms), which only packages need

    try:
        return str(license_expression.get_spdx_licensing().parse(name, validate=True))
    except (license_expression.ExpressionError, license_expression.ExpressionParseError):
        return next((spdx for pattern, spdx in _WORDS if re.search(pattern, name.lower())), None)


def _fields(distribution: importlib.metadata.Distribution) -> dict[str, list[str]]:
    meta = distribution.metadata
    return {key: [str(value) for value in meta.get_all(key) or []] for key in dict.fromkeys(meta)}


def _license_file(distribution: importlib.metadata.Distribution) -> str:
    for file in distribution.files or []:
        if re.match(r"(licen[sc]e|copying)([.-]\w+)?$", file.name, re.IGNORECASE) and ".dist-info" in str(file):
            try:
                return file.read_text(encoding="utf-8")[:20000]
            except (OSError, UnicodeDecodeError):
                continue
    return ""


def _attribution(distribution: importlib.metadata.Distribution) -> str:
    meta = _fields(distribution)
    author = next((meta[key][0] for key in ("Author", "Author-email", "Maintainer") if meta.get(key)), "")
    links = meta.get("Home-page") or [link.partition(", ")[2] for link in meta.get("Project-URL", [])]
    parts = [f"{meta['Name'][0]} {distribution.version}", author.strip(), *links[:1]]
    return ", ".join(part for part in parts if part)

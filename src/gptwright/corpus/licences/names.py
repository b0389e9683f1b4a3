"""A licence as people write it (a name, an id, a URL, an expression) to an SPDX expression."""

import functools
import re
from typing import Any

# Spellings by which a licence goes and SPDX does not know; ambiguous names stay ambiguous (LicenseRef-...).
_SPELLINGS = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache2": "Apache-2.0",
    "asl 2.0": "Apache-2.0",
    "bsd": "LicenseRef-BSD",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "revised bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "boost": "BSL-1.0",
    "cc0": "CC0-1.0",
    "cc zero": "CC0-1.0",
    "cc-zero": "CC0-1.0",
    "expat": "MIT",
    "mit expat": "MIT",
    "mpl": "LicenseRef-MPL",
    "mpl 2": "MPL-2.0",
    "gpl": "LicenseRef-GPL",
    "lgpl": "LicenseRef-LGPL",
    "agpl": "LicenseRef-AGPL",
    "gplv2": "GPL-2.0-only",
    "gplv3": "GPL-3.0-only",
    "lgplv3": "LGPL-3.0-only",
    "agplv3": "AGPL-3.0-only",
    "odc by": "ODC-By-1.0",
    "odc-by": "ODC-By-1.0",
    "odbl": "ODbL-1.0",
    "pddl": "PDDL-1.0",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "python": "PSF-2.0",
    "zpl": "LicenseRef-ZPL",
    "isc": "ISC",
    "own": "LicenseRef-own",
    "public domain": "LicenseRef-public-domain",
    "public-domain": "LicenseRef-public-domain",
    "pd": "LicenseRef-public-domain",
    "proprietary": "LicenseRef-proprietary",
    "unlicense": "Unlicense",
    "the unlicense": "Unlicense",
    "wtfpl": "WTFPL",
    "zlib": "Zlib",
    "zlib/libpng": "Zlib",
    "gfdl": "LicenseRef-GFDL",
}
_NOTHING = {
    "",
    "unknown",
    "none",
    "n/a",
    "na",
    "other",
    "other/proprietary",
    "null",
    "-",
    "see license",
    "license",
    "tbd",
}
_PATTERNS = (  # (pattern in a free-text name, SPDX id), tried in order
    (r"\bapache\b.{0,30}\b2(\.0)?\b|^apache (software )?licen[sc]e$|\basf\b.*2\.0", "Apache-2.0"),
    (
        r"^(the )?mit(\b.{0,12}licen[sc]e.*)?$|^(the )?mit/x|mit licen[sc]e|\bexpat\b.*licen[sc]e|^licen[sc]e :: .*mit",
        "MIT",
    ),
    (r"\b(bsd.{0,12}\b3|3.clause.{0,6}bsd|(new|modified|revised) .{0,5}bsd)", "BSD-3-Clause"),
    (r"\b(bsd.{0,12}\b2|2.clause.{0,6}bsd|simplified .{0,5}bsd|freebsd licen)", "BSD-2-Clause"),
    (r"\bzero.clause.{0,6}bsd|\bbsd.{0,3}zero|\bfree public license", "0BSD"),
    (r"^(the )?bsd(.(style|like|licen[sc]ed?))*( \(.*\))?$", "LicenseRef-BSD"),
    (r"^isc\b|\bisc licen[sc]e|\(iscl?\)", "ISC"),
    (r"\bmozilla.{0,30}1\.1|\bmpl.{0,3}1\.1", "MPL-1.1"),
    (r"\bmozilla.{0,30}\b2|\bmpl.{0,4}2", "MPL-2.0"),
    (r"\b(lgpl|(lesser|library) general).{0,40}2\.1.{0,20}(\+|later)", "LGPL-2.1-or-later"),
    (r"\b(lgpl|(lesser|library) general).{0,40}2\.1", "LGPL-2.1-only"),
    (r"\b(lgpl|(lesser|library) general).{0,40}\b(v|version )?2(\.0)?\b.{0,20}(\+|later)", "LGPL-2.0-or-later"),
    (r"\b(lgpl|lesser general).{0,40}3.{0,20}(\+|later)", "LGPL-3.0-or-later"),
    (r"\b(lgpl|lesser general).{0,40}3", "LGPL-3.0-only"),
    (r"\b(agpl|affero).{0,40}3.{0,20}(\+|later)", "AGPL-3.0-or-later"),
    (r"\b(agpl|affero).{0,40}3", "AGPL-3.0-only"),
    (r"\b(lgpl|lesser|library general|agpl|affero)\b", "LicenseRef-GNU"),
    (r"\b(gpl|general public licen[sc]e).{0,30}3.{0,20}(\+|later)", "GPL-3.0-or-later"),
    (r"\b(gpl|general public licen[sc]e).{0,30}3", "GPL-3.0-only"),
    (r"\b(gpl|general public licen[sc]e).{0,30}2.{0,20}(\+|later)", "GPL-2.0-or-later"),
    (r"\b(gpl|general public licen[sc]e).{0,30}2", "GPL-2.0-only"),
    (r"\b(gpl|general public licen[sc]e)\b", "LicenseRef-GNU"),
    (r"\bunlicense\b", "Unlicense"),
    (r"\bcc0\b|\bcc.zero|public domain dedication", "CC0-1.0"),
    (
        r"^(this (work|text) is (in|under) )?(the )?public domain( mark)?$|^public domain in the us",
        "LicenseRef-public-domain",
    ),
    (r"\bpython software foundation|^psf\b|^psfl\b", "PSF-2.0"),
    (r"\bboost software licen", "BSL-1.0"),
    (r"\bzope public.{0,20}2\.1", "ZPL-2.1"),
    (r"\beclipse public.{0,30}2|^epl.{0,3}2", "EPL-2.0"),
    (r"\beclipse public.{0,30}1|^epl.{0,3}1", "EPL-1.0"),
    (r"\beuropean union public.{0,20}1\.2|^eupl.{0,5}1\.2", "EUPL-1.2"),
    (r"\bartistic licen[sc]e.{0,10}2", "Artistic-2.0"),
    (r"\bhistorical permission notice|\bhpnd\b", "HPND"),
    (r"\bsil open font|\bofl.{0,3}1\.1", "OFL-1.1"),
    (r"\bdo what the f", "WTFPL"),
    (r"\bmulan.{0,20}2", "MulanPSL-2.0"),
    (r"\bopen data commons attribution|\bodc.attribution", "ODC-By-1.0"),
    (r"\bopen database licen", "ODbL-1.0"),
    (r"\bgnu free documentation.{0,20}1\.3|\bgfdl.{0,3}1\.3", "GFDL-1.3-or-later"),
    (r"\bgnu free documentation.{0,20}1\.2|\bgfdl.{0,3}1\.2", "GFDL-1.2-or-later"),
)
_CC_NAME = re.compile(
    r"(?:creative commons |cc[ -]?)?(?:by|attribution)(?P<parts>(?:[ ,/-]*(?:non-?commercial|nc|no-?deriv\w*|nd|share-?alike|sa))*)"
    r"(?P<rest>[ ,/-]*(?:international|licen[sc]e|public|unported|generic|v(?:ersion)?)?[ ,/.v-]*)(?P<version>[1-4]\.[05])"
    r"(?P<tail> (?:international|unported|generic|licen[sc]e|public|deed|\([^)]*\)| )*)?$"
)
_CC_URL = re.compile(
    r"creativecommons\.org/(?:licen[sc]es/(?P<parts>by(?:-nc|-nd|-sa)*)/(?P<version>\d\.\d)(?:/(?P<port>[a-z]{2,3})(?=/|$))?"
    r"|(?P<cc0>publicdomain/zero)|(?P<mark>publicdomain/mark)|(?P<old>licen[sc]es/publicdomain))",
    re.IGNORECASE,
)
_URLS = (
    (r"(?:spdx\.org|opensource\.org)/licen[sc]es?/(?P<id>[A-Za-z0-9.+-]+?)(?:\.html|\.json|\.php)?/?$", None),
    (r"choosealicense\.com/licen[sc]es/(?P<id>[A-Za-z0-9.+-]+)", None),
    (r"apache\.org/licen[sc]es/LICENSE-2\.0", "Apache-2.0"),
    (r"mozilla\.org/(?:en-US/)?MPL/2\.0", "MPL-2.0"),
    (r"unlicense\.org", "Unlicense"),
    (r"wtfpl\.net", "WTFPL"),
    (r"gnu\.org/licen[sc]es/(?:old-licenses/)?(?P<gnu>(?:agpl|lgpl|gpl|fdl)-\d\.\d)", None),
    (r"opendatacommons\.org/licen[sc]es/by", "ODC-By-1.0"),
    (r"opendatacommons\.org/licen[sc]es/odbl", "ODbL-1.0"),
    (r"opendatacommons\.org/licen[sc]es/pddl", "PDDL-1.0"),
    (r"cdla\.(?:dev|io)/permissive-2-0", "CDLA-Permissive-2.0"),
    (r"nationalarchives\.gov\.uk/doc/open-government-licen[sc]e/version/(?P<ogl>[123])", None),
    (r"eclipse\.org/legal/epl-2\.0", "EPL-2.0"),
    (r"boost\.org/LICENSE_1_0", "BSL-1.0"),
)
_JOINTS = re.compile(r"\s+(or|and|and/or)\s+|\s*(/|\|\||\||;|,)\s*", re.IGNORECASE)
LONGEST = 1000  # characters; a longer "name" is a text, which texts.py reads


@functools.cache
def licensing() -> Any:
    """The SPDX symbols that license-expression knows; reading its list takes 20 ms, so it is read when first asked for."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@functools.lru_cache(maxsize=8192)
def normalise(text: str | None) -> str | None:
    """The SPDX expression of what someone wrote about a licence.

    Args:
        text: an id, an expression, a name, or the URL of a licence.

    Returns:
        The expression with canonical ids (``LicenseRef-...`` where a name says too little, such as "BSD"); None when it is not
        understood or says nothing. Lists ("MIT, BSD-3-Clause") are read cautiously, as licences that all apply.

    Source: SPDX 2.3 annex D (expressions); URLs of the licences' own pages.
    """
    if not text or len(text) > LONGEST:
        return None
    text = " ".join(text.split()).strip(" .\"'")
    if text.casefold() in _NOTHING:
        return None
    if "://" in text or re.match(r"//|(www\.)?(creativecommons|spdx|opensource)\.org/", text, re.IGNORECASE):
        return _of_url(text)
    return _expression(text) or _name(text) or _several(text)


def spdx_id(name: str) -> str | None:
    """As ``normalise``."""
    return normalise(name)


def _expression(text: str) -> str | None:
    try:
        parsed = licensing().parse(text)
    except Exception:  # the parser fails in many ways on what is no expression, with IndexError on "(("
        return None
    if parsed is None:
        return None
    for key in licensing().license_keys(parsed):
        if key not in licensing().known_symbols and not re.fullmatch(
            r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+", key
        ):
            return None
    return str(parsed)


def _of_url(url: str) -> str | None:
    if found := _CC_URL.search(url):
        if found["cc0"]:
            return "CC0-1.0"
        if found["mark"] or found["old"]:
            return "LicenseRef-public-domain"
        plain = _creative_commons(re.findall(r"nc|nd|sa", found["parts"].lower()), found["version"])
        ported = f"{plain}-{found['port'].upper()}" if found["port"] else None
        return ported if ported in licensing().known_symbols else plain
    for pattern, identity in _URLS:
        if match := re.search(pattern, url, re.IGNORECASE):
            groups = match.groupdict()
            if groups.get("gnu"):
                family, _, version = groups["gnu"].upper().partition("-")
                return f"{'GFDL' if family == 'FDL' else family}-{version}-only"
            if groups.get("ogl"):
                return f"OGL-UK-{groups['ogl']}.0"
            return identity or _expression(groups["id"]) or _name(groups["id"])
    return None


def _creative_commons(parts: list[str], version: str) -> str | None:
    order = ("nc", "nd", "sa")
    made = "-".join(["CC-BY", *(part.upper() for part in order if part in parts), version])
    return made if made in licensing().known_symbols else None


def _name(name: str) -> str | None:
    plain = re.sub(r"^the | licen[sc]e[ds]?$| licen[sc]e,? v(?:ersion)?\.? ?(?=\d)", " ", name.casefold()).strip()
    plain = re.sub(r"^licensed under |^license :: (osi approved :: )?", "", " ".join(plain.split()))
    if found := _SPELLINGS.get(name.casefold()) or _SPELLINGS.get(plain):
        return found
    if match := _CC_NAME.match(plain):
        words = match["parts"].replace("-", "")
        kinds = (("noncommercial", "nc"), ("noderiv", "nd"), ("sharealike", "sa"))
        parts = [
            short
            for long, short in kinds
            if long in words or re.search(rf"(?:^|[ ,/]){short}", match["parts"].replace("-", " "))
        ]
        return _creative_commons(parts, match["version"])
    pieces = _pieces(name)
    if len(pieces) > 1 and all(_SPELLINGS.get(piece.casefold()) or _expression(piece) for piece in pieces):
        return None  # a list, which is read piece by piece
    if len(name) > 200:
        return None
    return next((spdx for pattern, spdx in _PATTERNS if re.search(pattern, name.casefold())), None)


def _pieces(text: str) -> list[str]:
    return [piece for piece in _JOINTS.sub("\n", text.strip("() ")).split("\n") if piece.strip()]


def _several(text: str) -> str | None:
    """``MIT / Apache 2.0`` as a choice (Cargo's old way), ``MIT, BSD`` and ``MIT and BSD`` as both."""
    pieces = _pieces(text)
    if not 1 < len(pieces) <= 8:
        return None
    found = [normalise(piece) for piece in pieces]
    if any(one is None for one in found):
        return None
    joints = {(match[1] or match[2]).lower() for match in _JOINTS.finditer(text)}
    choice = joints <= {"or", "/", "|", "||", "and/or"}
    unique = list(dict.fromkeys(f"({one})" if " " in str(one) else str(one) for one in found))
    return _expression((" OR " if choice else " AND ").join(unique))

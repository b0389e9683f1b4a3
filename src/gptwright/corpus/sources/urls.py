"""URLs as identities: one spelling for one page, links made absolute, nothing but http and https."""

import re
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}
# Parameters that say where a reader came from, not what is shown.
_TRACKING = re.compile(
    r"(utm_[a-z_]+|gclid|gclsrc|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|ttclid|igshid|igsh|mc_cid|mc_eid|_ga|_gl|"
    r"_hsenc|_hsmi|mkt_tok|ref_src|wt_mc|vero_id|oly_anon_id|oly_enc_id)",
    re.IGNORECASE,
)
_KEPT_PATH = "/:@!$&'()*+,;=-._~%"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
LONGEST = 4000  # characters; traps for crawlers grow longer


def canonical(url: str, base: str | None = None) -> str | None:
    """The one spelling of a page's URL, in ASCII: also the one that is asked for.

    Scheme and host in lower case (IDNA), default port, user name, fragment and tracking parameters dropped, dot segments
    resolved, percent-encoding even, no empty path and no empty query.

    Args:
        url: as found, absolute or relative.
        base: what it is relative to.

    Returns:
        None when it is no http or https URL.

    Source: RFC 3986 section 6.2 (normalisation).
    """
    url = re.sub(r"[\t\r\n]", "", url.strip())
    try:
        parts = urlsplit(urljoin(base, url) if base else url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not host:
        return None
    name = _host(host)
    if name is None:
        return None
    place = name if port in (None, _PORTS[scheme]) else f"{name}:{port}"
    path = _dots(_even(quote(parts.path, safe=_KEPT_PATH))) or "/"
    query = "&".join(
        piece for piece in parts.query.split("&") if piece and not _TRACKING.fullmatch(unquote(piece.partition("=")[0]))
    )
    made = urlunsplit((scheme, place, path, _even(quote(query, safe=_KEPT_PATH + "?")), ""))
    return made if len(made) <= LONGEST else None


def origin(url: str) -> str:
    """``scheme://host[:port]`` of a canonical URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def host_of(url: str) -> str:
    """The host of a URL without its port, in lower case."""
    return urlsplit(url).hostname or ""


def path_of(url: str) -> str:
    """Path and query of a URL, as robots.txt and its kin match them."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def matches(pattern: str, path: str) -> bool:
    """Whether a path begins as a pattern of robots.txt says: ``*`` for anything, ``$`` at its end for the end.

    Source: RFC 9309 section 2.2.3.
    """
    ends = pattern.endswith("$")
    pieces = _even(quote(pattern.removesuffix("$"), safe=_KEPT_PATH + "?")).split("*")
    path = _even(quote(path, safe=_KEPT_PATH + "?"))
    if not path.startswith(pieces[0]):
        return False
    at = len(pieces[0])
    # Each piece at its first place: no pattern makes this quadratic, as a regular expression could.
    for number, piece in enumerate(pieces[1:], 1):
        if ends and number == len(pieces) - 1:
            return len(path) - len(piece) >= at and path.endswith(piece)
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return not ends or at == len(path)


def _host(host: str) -> str | None:
    if ":" in host:
        return f"[{host.lower()}]"
    host = host.rstrip(".").lower()
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            return None
    return host if re.fullmatch(r"[a-z0-9_.-]{1,253}", host) else None


def _even(text: str) -> str:
    """Percent-encoding in one form: letters and digits plain, the rest in capitals, a lone % as %25."""

    def one(match: re.Match[str]) -> str:
        byte = int(match[1], 16)
        return chr(byte) if byte in _UNRESERVED else f"%{match[1].upper()}"

    return _ESCAPE.sub(one, re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text))


def _dots(path: str) -> str:
    if "/." not in path:
        return path
    kept: list[str] = []
    pieces = path.split("/")
    for piece in pieces:
        if piece == "..":
            kept[1:] = kept[1:-1]
        elif piece != ".":
            kept.append(piece)
    return "/".join(kept) + ("/" if pieces[-1] in (".", "..") and kept[-1:] != [""] else "")

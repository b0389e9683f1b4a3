"""Secrets: keys and tokens by the prefixes that their issuers give them, private keys, passwords in addresses and in assignments.

The shapes are those that the issuers document; what stands for a key in a manual (EXAMPLE, xxxx, your-key-here) is none.
"""

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Iterator

from gptwright.corpus.privacy.spans import Span

_TOKENS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # AWS access key id
    r"gh[pousr]_[A-Za-z0-9]{36,251}",  # GitHub
    r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas)-[A-Za-z0-9_-]{20,64}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9-]{10,250}",
    r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,247}",  # Stripe; pk_ keys are public
    r"whsec_[A-Za-z0-9+/=]{24,100}",
    r"sk-ant-(?:api|admin|oat)[0-9][0-9]-[A-Za-z0-9_-]{20,200}",  # Anthropic
    r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,250}",  # OpenAI
    r"sk-[A-Za-z0-9]{20,64}",
    r"AIza[A-Za-z0-9_-]{35}",  # Google API key
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"ya29\.[A-Za-z0-9_-]{20,500}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgE[A-Za-z0-9_-]{50,500}",
    r"hf_[A-Za-z0-9]{34}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
    r"do[opr]_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"dapi[a-f0-9]{32}",  # Databricks
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(_TOKENS)})(?![A-Za-z0-9_])")
_JWT = re.compile(
    r"(?<![A-Za-z0-9_])(eyJ[A-Za-z0-9_-]{10,500})\.eyJ[A-Za-z0-9_-]{8,4000}\.(?:[A-Za-z0-9_-]{10,1000}(?![A-Za-z0-9_]))?"
)
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\\\s]{0,8192}")
_PEM_LONGEST = 8192
_URL = re.compile(r"://[^\s:/@\"'<>`]{0,64}:([^\s/@\"'<>`]{3,128})@[A-Za-z0-9\[]")
_ASSIGNED = re.compile(
    r"[\"'\])`]{0,2}[ \t]{0,3}(?::=|=>|==?|:)[ \t]{0,3}(?:[rbuf]?([\"'`])([^\"'`\s]{6,128})\1|([^\s\"'`,;]{6,128}))"
)
_NAME = re.compile(
    r"(?ai:(?P<word>pass(?:word|wd|phrase)|pwd|passwort|kennwort|contraseña|mot de passe|wachtwoord|senha)|"
    r"(?P<key>secret|token|api_?key|api-key|access_?key|secret_?key|private_?key|auth_?key|client_?secret|credentials?|bearer))"
    r"(?:[_-][A-Za-z0-9_]{1,20})?$"
)
_STANDIN = re.compile(
    r"(?i:example|anonymous|anoncvs|placeholder|changeme|change_me|change-me|your|dummy|redacted|(?-i:x{3,}|X{4,})|\*\*\*|\.\.\.|12345678|abcdef|<|>|\{|\}|\$|%s|"
    r"^pass(?:word|wd)?$|^secret$|^test$|^none$|^null$|^true$|^false$|^foobar$|^string$|^str$|^optional|^required)"
)
_CODE = re.compile(r"[(\[\]]|^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$|::|->|/{2}")
_DIGIT, _SIGN = re.compile(r"[0-9]"), re.compile(r"[^\w.]")
_KINDS = (re.compile("[a-z]"), re.compile("[A-Z]"), _DIGIT, re.compile(r"[^\w]"))
_MARK = re.compile(r"[=:]")


def tokens(text: str, start: int, end: int) -> Iterator[Span]:
    """Keys and tokens in one word that begin in ``text[start:end]``; they may overlap."""
    for match in _beginning_in(_TOKEN, text, start, end):
        if not _STANDIN.search(match[0]) and entropy(match[0][4:]) >= 2.5:
            yield Span(*match.span(), "SECRET")


def web_tokens(text: str, start: int, end: int) -> Iterator[Span]:
    """JSON web tokens (RFC 7519) that begin in ``text[start:end]``; they may overlap."""
    if text.find("eyJ", start, min(len(text), end + 3)) < 0:
        return
    for match in _beginning_in(_JWT, text, start, end):
        if _is_jwt_header(match[1]):
            yield Span(*match.span(), "SECRET")


def _beginning_in(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """Every match that begins in ``text[start:end]``: one that is refused must not hide another inside it."""
    if end - start == 1:
        if match := pattern.match(text, start):
            yield match
        return
    at = start
    while (found := pattern.search(text, at)) and found.start() < end:
        yield found
        at = found.start() + 1


def private_keys(text: str, start: int, end: int) -> Iterator[Span]:
    """PEM private keys that begin in ``text[start:end]``; one that is cut off is taken as far as it goes."""
    at = start
    while (at := text.find("-----BEGIN ", at, min(len(text), end + 11))) >= 0 and at < end:
        match = _PEM.match(text, at)
        at += 11
        if match is None:
            continue
        last = text.find("-----END ", match.end(), match.end() + _PEM_LONGEST)
        closed = _PEM_END.match(text, last) if last >= 0 else None
        if closed is None:
            closed = _PEM_BODY.match(text, match.end())
            assert closed is not None
        yield Span(match.start(), closed.end(), "SECRET")
        at = closed.end()


def passwords_in_urls(text: str, start: int, end: int) -> Iterator[Span]:
    """The password of ``scheme://user:password@host``, where ``://`` begins in ``text[start:end]``."""
    at = start
    while (at := text.find("://", at, min(len(text), end + 3))) >= 0 and at < end:
        match = _URL.match(text, at)
        if match and not _STANDIN.search(match[1]):
            yield Span(*match.span(1), "SECRET")
        at += 3


def assigned(text: str, start: int, end: int) -> Iterator[Span]:
    """Values given to a name such as password or api_key, where the first ``=`` or ``:`` stands in ``text[start:end]``."""
    for mark in _MARK.finditer(text, start, end):
        if span := _assigned_at(text, mark.start()):
            yield span


def _assigned_at(text: str, mark: int) -> Span | None:
    # The name ends before the mark, with at most quotes, a bracket and blanks between.
    name_end = mark
    while name_end > max(0, mark - 6) and text[name_end - 1] in " \t\"'])`":
        name_end -= 1
    begin = name_end
    while begin > max(0, name_end - 48) and (text[begin - 1].isalnum() or text[begin - 1] in "_- "):
        begin -= 1
    name = _NAME.search(text, begin, name_end)
    if name is None:
        return None
    match = _ASSIGNED.match(text, name_end)
    if match is None:
        return None
    group = 2 if match[1] else 3
    value = match[group]
    if not match[1]:
        value = value.rstrip(".)")
    if sum(kind.search(value) is not None for kind in _KINDS) < 2:
        return None
    digit = _DIGIT.search(value) is not None
    if name["word"]:
        good = entropy(value) >= 2.0 and (bool(match[1]) or digit or _SIGN.search(value) is not None)
    else:
        good = len(value) >= 16 and digit and entropy(value) >= 3.0
    if not good or _STANDIN.search(value) or _CODE.search(value):
        return None
    return Span(match.start(group), match.start(group) + len(value), "SECRET")


def entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values()) if text else 0.0


def _is_jwt_header(part: str) -> bool:
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return False
    return isinstance(header, dict) and "alg" in header

"""Content hashes and the ids made of them (BLAKE2b). One place, so that an id means the same everywhere."""

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def b2(data: bytes | str) -> str:
    """BLAKE2b-256 of bytes (or of UTF-8 text) as ``b2:<64 hex>``."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return "b2:" + hashlib.blake2b(raw, digest_size=32).hexdigest()


def b2_file(path: str | Path) -> str:
    """BLAKE2b-256 of a file's bytes, read in blocks."""
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return "b2:" + digest.hexdigest()


def b2_json(value: Any) -> str:
    """Hash of a JSON value, independent of key order and spacing."""
    return b2(canonical_json(value))


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _b2_128(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def doc_uid(source: str, locator: str) -> str:
    """Id of a document by where it stands: source name and normalised POSIX locator (32 hex). Stable when its text changes."""
    place = unicodedata.normalize("NFC", locator.replace("\\", "/"))
    return _b2_128(source.encode() + b"\x00" + place.encode("utf-8", "surrogatepass"))


def content_id(text: str) -> str:
    """Id of a text by its NFC form (32 hex)."""
    return _b2_128(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass"))


def norm_id(text: str) -> str:
    """Id of a text with case folded and white space collapsed (32 hex): equal for copies that differ in layout only."""
    return _b2_128(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))

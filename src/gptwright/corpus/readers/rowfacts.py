"""What a row of JSON, CSV or parquet says of its text: licence, date, address, author; also under ``metadata``."""

from functools import lru_cache
from typing import Any

from gptwright.corpus.shapes import FACT_KEYS, URL_KEYS
from gptwright.corpus.sources.base import Facts

_CONF = 0.7  # someone wrote it into the row on purpose, but nobody knows from what
_DATES = ("published_at", "published", "date", "created", "timestamp")


def row_facts(row: Any) -> Facts | None:
    """Facts of a row; None when it states none."""
    if type(row) is not dict or not _states(tuple(row)):
        return None
    lower = {str(key).lower(): value for key, value in row.items()}
    inner = lower.get("metadata")
    if isinstance(inner, dict):
        lower = {str(key).lower(): value for key, value in inner.items()} | {
            k: v for k, v in lower.items() if v is not None
        }
    from gptwright.corpus.licences.names import normalise
    from gptwright.corpus.sources.page import parse_date

    stated = _text(lower, ("license", "licence", "license_type"))
    licence = normalise(stated) if stated else None
    date = next((found for key in _DATES if (found := parse_date(_plain(lower.get(key))))), None)
    facts = Facts(
        url=_text(lower, URL_KEYS),
        published_at=date,
        license_id=licence,
        license_source="row" if licence else "none",
        license_conf=_CONF if licence else 0.0,
        attribution=_text(lower, ("attribution", "author")),
    )
    return facts if facts != Facts() else None


@lru_cache(1024)
def _states(keys: tuple[Any, ...]) -> bool:
    return any(isinstance(key, str) and key.lower() in FACT_KEYS for key in keys)


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _text(lower: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    return next(
        (lower[key].strip()[:500] for key in keys if isinstance(lower.get(key), str) and lower[key].strip()), None
    )

"""Personal data and secrets in text: found by shape and checksum, then kept, masked, replaced or reason to drop a document.

`find_pii` and `mask_pii` take one text; `bulk.scan` takes a part of a corpus. Neither result means "free of personal data".
"""

from gptwright.corpus.privacy.find import find_all, find_pii, mask_pii
from gptwright.corpus.privacy.spans import KINDS, NAME_KINDS, QUICK_KINDS, Span, placeholder

CODE = tuple(
    f"gptwright.corpus.privacy.{module}"
    for module in (
        "bulk", "bytewise", "contact", "credentials", "find", "ids", "money", "names", "numbers", "places", "policy", "pseudonyms", "regions",
        "spans", "street_words",
    )
)  # fmt: skip
"""The modules that decide what is found and what stands in its place, for a task's version; with the libraries of `LIBRARIES`."""

LIBRARIES = ("phonenumbers", "python-stdnum")

__all__ = [
    "CODE",
    "KINDS",
    "LIBRARIES",
    "NAME_KINDS",
    "QUICK_KINDS",
    "Span",
    "find_all",
    "find_pii",
    "mask_pii",
    "placeholder",
]

"""Personal data and secrets in text: found by shape and checksum, then kept, masked, replaced or reason to drop a document.

`find_pii` and `mask_pii` take one text; `bulk.scan` takes a part of a corpus. Neither result means "free of personal data".
"""

from gptwright.corpus.privacy.find import find_all, find_pii, mask_pii
from gptwright.corpus.privacy.spans import KINDS, NAME_KINDS, QUICK_KINDS, Span, placeholder

__all__ = ["KINDS", "NAME_KINDS", "QUICK_KINDS", "Span", "find_all", "find_pii", "mask_pii", "placeholder"]

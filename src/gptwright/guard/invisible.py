"""Characters that a reader cannot see but a model can: removed from text that a person sent.

Instructions can be smuggled in zero-width, tag and variation characters, and bidirectional controls make text read
differently from what it says. Joiners stay where scripts and emoji need them.

Source: Unicode Standard 17, chapter 23.2 (layout controls), 23.9 (tag characters); UTS #51 (emoji sequences);
"Trojan Source", Boucher and Anderson 2021, arXiv:2111.00169.
"""

import re

_FLAG_TAGS = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"
"""Flags of subdivisions (Scotland, Wales) are a black flag and tags: the only use of tag characters that is valid."""

_HIDDEN = re.compile(
    "(?P<keep>" + _FLAG_TAGS + ")"
    "|[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f]"  # controls but tab, line ends
    "|[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0]"  # soft hyphen, fillers, joiner that shows nothing
    "|[\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"  # zero width, bidirectional, invisible operators
    "|[\U0001d173-\U0001d17a\U000e0000-\U000e01ef\U0001bca0-\U0001bca3]"  # tags, variation selectors 17 to 256
    "|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]+"  # a second variation selector in a row carries data, not a shape
)
_JOINER = re.compile(
    "(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])|(?<=[\u200c\u200d])[\u200c\u200d]+"
)
_LONE_SELECTOR = re.compile("(?<![0-9#*\x80-\U0010ffff])[\ufe00-\ufe0f]")
"""A variation selector belongs to a letter or emoji beyond ASCII, or to a keycap (digit, # or *)."""


def strip_invisible(text: str) -> str:
    """Remove what cannot be seen, keep what writing needs.

    Args:
        text: any text.

    Returns:
        The text without hidden characters. Doing it again changes nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    while True:
        # Removing one character can bring two others together, so go on until nothing is left to remove.
        cleaned = _HIDDEN.sub(lambda match: match["keep"] or "", text)
        cleaned = _LONE_SELECTOR.sub("", _JOINER.sub("", cleaned))
        if cleaned == text:
            return cleaned
        text = cleaned

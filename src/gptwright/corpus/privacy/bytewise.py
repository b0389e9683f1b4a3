"""What bytes are to the kernels that look for personal data, as bits; and words as numbers that they compare."""

import numpy as np
import numpy.typing as npt

# What a byte is, as bits.
LETTER, UPPER, DIGIT, RUN, MAIL, HEX, EVENT, ENDS_URL = (1 << n for n in range(8))


def _table() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        char = chr(byte)
        ascii_letter = byte < 128 and char.isalpha()
        bits = LETTER * (ascii_letter or byte >= 128) + UPPER * (ascii_letter and char.isupper())
        bits += DIGIT * (char in "0123456789")
        bits += RUN * (byte < 128 and (char.isupper() or char in "0123456789 \t.-/()+"))
        bits += MAIL * (ascii_letter or byte >= 128 or char in "0123456789._%+-@")
        bits += HEX * (char in "0123456789abcdefABCDEF:.")
        bits += EVENT * (not ascii_letter)  # what is no letter: the rest of a word needs no look
        bits += ENDS_URL * (char in " \t\n\r/\"'<>`")
        table[byte] = bits
    return table


def packed(words: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Beginnings of up to seven bytes, as numbers: the length in the lowest byte, then the bytes."""
    return np.array([int.from_bytes(bytes([len(w.encode())]) + w.encode(), "little") for w in words], np.int64)


CLASSES = _table()

"""Token ids to text while they arrive: whole characters only, nothing held back for long, nothing lost."""

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Incremental decoder; ``"".join(pushes) + finish()`` equals decoding all bytes at once with replacement.

    At most the three first bytes of an unfinished character are held back. Bytes that can no longer become a character
    come out as U+FFFD at once, an unfinished one at ``finish``; so a model that emits broken UTF-8 cannot stall a stream.

    Args:
        token_bytes: bytes of an id; empty for control ids.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Text that has become certain with this token; often empty inside a character."""
        return self._decoder.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """What was held back, as U+FFFD if it is no character. The decoder is ready for a new text afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest

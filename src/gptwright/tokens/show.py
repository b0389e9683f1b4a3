"""How a text splits into tokens, for people: pieces, ids, bytes."""

from dataclasses import dataclass

from gptwright.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Piece:
    """One token.

    Args:
        id: its number.
        text: what it writes; a broken part of a character is shown as hex such as <E2 82>.
        bytes: how many bytes that is.
    """

    id: int
    text: str
    bytes: int


@dataclass(frozen=True)
class Shown:
    """A text and its tokens."""

    pieces: list[Piece]
    characters: int
    bytes: int

    @property
    def bytes_per_token(self) -> float:
        """How much text a token carries here."""
        return self.bytes / max(len(self.pieces), 1)

    def __str__(self) -> str:
        row = "|".join(piece.text.replace("\n", "↵") for piece in self.pieces)
        ids = " ".join(str(piece.id) for piece in self.pieces)
        return (
            f"{row}\n{ids}\n{len(self.pieces)} tokens, {self.bytes} bytes, {self.bytes_per_token:.2f} bytes per token"
        )


def show(tokenizer: Tokenizer, text: str) -> Shown:
    """Split a text; control tokens in it are plain text, as everywhere."""
    pieces = []
    for token in tokenizer.encode(text):
        raw = tokenizer.token_bytes(token)
        try:
            written = raw.decode()
        except UnicodeDecodeError:
            written = f"<{raw.hex(' ').upper()}>"
        pieces.append(Piece(token, written, len(raw)))
    return Shown(pieces, len(text), sum(piece.bytes for piece in pieces))

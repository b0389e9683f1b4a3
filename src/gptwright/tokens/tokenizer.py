"""One tokenizer API for our own vocabularies and for those of imported models: text to ids, ids to text, chats to both.

``encode`` never yields a control id, whatever the text says; only rendering a chat or a document's end places one.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as HfTokenizer

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.core.hashing import b2_json
from gptwright.tokens import chat
from gptwright.tokens.bpe import EOS, IM_END, IM_START, learn_bpe, mend_surrogates, split_text
from gptwright.tokens.stream import StreamDecoder
from gptwright.tokens.template import CHAT_TEMPLATE

if TYPE_CHECKING:
    from gptwright.tokens.bulk import BulkEncoder

# One call of the Rust encoder gets at most this much: it keeps an object per token, about 100 bytes each.
_ENCODE_CHARS = 1 << 20
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def train_tokenizer(texts: Iterable[str], vocab_size: int, out_dir: Path) -> "Tokenizer":
    """Train a byte-level BPE with llama.cpp's ``qwen2`` pre-tokenizer, save it, and load it.

    Args:
        texts: training texts, read once. The same texts in the same order give the same files, byte for byte.
        vocab_size: ids wanted; fewer come out of a small corpus.
        out_dir: written in one step.

    Raises:
        UserError: vocab_size below 264, or no text.
    """
    learn_bpe(texts, vocab_size, out_dir)
    return Tokenizer.load(out_dir)


class Tokenizer:
    """Encoder, decoder and chat renderer of one model.

    Attributes:
        vocab_size: highest id + 1.
        padded_vocab_size: rows of the embedding: the next multiple of 64.
        eos_id: ends a document; also used for padding.
        im_end_id: ends a turn.
        stop_ids: ids that end a generation.
        control_ids: ids that no text can produce.
        bos_id: id that an imported model wants at the start of a plain prompt, or None.
        template: Jinja text, or None.
    """

    def __init__(
        self,
        tokenizer_json: str,
        *,
        template: str | None = None,
        config: Mapping[str, Any] | None = None,
        stop_ids: Iterable[int] = (),
        where: str = "tokenizer.json",
    ) -> None:
        try:
            raw: dict[str, Any] = json.loads(tokenizer_json)
            self._added = {int(token["id"]): token for token in raw.get("added_tokens") or ()}
            self.bos_id = _leading_special(raw.get("post_processor"))
            # No template of special tokens around a text, no cutting, no padding: callers get the ids of their text alone.
            bare = {**raw, "post_processor": None, "truncation": None, "padding": None}
            self._hf = HfTokenizer.from_str(json.dumps(bare))
        except Exception as error:  # the Rust side raises bare Exception
            raise UserError(f"not a tokenizer file: {error}", where=where) from error
        self._hf.encode_special_tokens = True  # the text "<|im_end|>" is seven ordinary tokens, never id 2
        self._raw = raw
        self._config = dict(config or {})
        self.template = template
        ids = self._hf.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        self.padded_vocab_size = -(-self.vocab_size // 64) * 64
        self.control_ids = frozenset(index for index, token in self._added.items() if token.get("special"))
        self._forgeable = _may_forge(raw, {str(self._added[index]["content"]) for index in self.control_ids})
        named = _special_names(self._config)
        fallback = ids.get(named.get("eos_token", ""), -1)
        self.eos_id = int(ids.get(EOS, fallback))
        if self.eos_id < 0:
            raise UserError(
                "the tokenizer names no end-of-text token", where=where, fix="Set eos_token in tokenizer_config.json"
            )
        self.im_start_id: int | None = ids.get(IM_START)
        self.im_end_id = int(ids.get(IM_END, fallback if fallback >= 0 else self.eos_id))
        self.stop_ids = frozenset({self.eos_id, self.im_end_id, *stop_ids, *([fallback] if fallback >= 0 else [])})
        self.special_tokens = named
        self._renderer = chat.renderer(self)

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Open the tokenizer of a directory: one of ours, or a Hugging Face model directory with a tokenizer.json.

        Raises:
            UserError: there is none, or it is damaged.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise UserError("no tokenizer.json", where=str(folder), fix="Run: gptwright tokenizer train") from error
        config = _optional_json(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        stops = _optional_json(folder / "generation_config.json").get("eos_token_id")
        return cls(
            text,
            template=template.read_text(encoding="utf-8") if template.is_file() else _config_template(config),
            config=config,
            stop_ids=stops if isinstance(stops, list) else [] if stops is None else [int(stops)],
            where=str(path),
        )

    def save(self, folder: str | Path) -> None:
        """Write the files into a (model) directory, each of them atomically."""
        from gptwright.tokens.bpe import write_tokenizer_files

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"tokenizer.json": self.json}
        if self.is_own:
            import tempfile

            with tempfile.TemporaryDirectory() as scratch:
                write_tokenizer_files(Path(scratch), self.json)
                content = {name: (Path(scratch) / name).read_text(encoding="utf-8") for name in _FILES}
        else:
            if self._config:
                content["tokenizer_config.json"] = json.dumps(self._config, indent=2, ensure_ascii=False) + "\n"
            if self.template is not None:
                content["chat_template.jinja"] = self.template
        for name, text in content.items():
            with atomic_write(folder / name, "w") as file:
                file.write(text)

    @functools.cached_property
    def json(self) -> str:
        """tokenizer.json as text."""
        return json.dumps(self._raw, ensure_ascii=False, separators=(",", ":"))

    @property
    def is_own(self) -> bool:
        """Whether it was trained here: our template and our control ids."""
        return self.template == CHAT_TEMPLATE and self.eos_id == 0

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all that decides which ids a text or a chat becomes."""
        return b2_json({"tokenizer": self._raw, "template": self.template})

    # Text to ids

    def remember_words(self, most: int) -> None:
        """Bound the cache that every thread which encodes has for itself, for as long as it lives.

        Args:
            most: words; the library's own bound of 10,000 saves up to a fifth of the time and takes up to 6 MB of each thread.
        """
        resize = getattr(
            self._hf.model, "_resize_cache", None
        )  # private to the library; a model without merges has none
        if resize is not None:
            resize(most)

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Control tokens in the text come out as ordinary characters."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts at once, on all cores, without holding the interpreter."""
        pieces: list[str] = []
        counts: list[int] = []
        for text in texts:
            parts = split_text(text, _ENCODE_CHARS)
            counts.append(len(parts))
            pieces.extend(parts)
        encoded: list[list[int]] = []
        start = 0
        while start < len(pieces):
            end, chars = start, 0
            while end < len(pieces) and (end == start or chars + len(pieces[end]) <= 4 * _ENCODE_CHARS):
                chars += len(pieces[end])
                end += 1
            encoded += self._encode_pieces(pieces[start:end])
            start = end
        if len(encoded) == len(texts):
            return encoded
        joined: list[list[int]] = []
        at = 0
        for count in counts:
            joined.append([token for part in encoded[at : at + count] for token in part])
            at += count
        return joined

    def bulk_encoder(self) -> "BulkEncoder | None":
        """A faster encoder for many texts, with the same ids; None for vocabularies of another kind than ours."""
        from gptwright.tokens.bulk import BulkEncoder  # compiles, or loads what was compiled

        return BulkEncoder.of(self._raw, self.encode)

    def _encode_pieces(self, pieces: list[str]) -> list[list[int]]:
        try:
            found = self._hf.encode_batch_fast(pieces, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):  # lone surrogates
            found = self._hf.encode_batch_fast([mend_surrogates(piece) for piece in pieces], add_special_tokens=False)
        ids: list[list[int]] = [encoding.ids for encoding in found]
        if self._forgeable:
            ids = [
                row if self.control_ids.isdisjoint(row) else self._encode_broken(piece)
                for row, piece in zip(ids, pieces, strict=True)
            ]
        return ids

    def _encode_broken(self, text: str) -> list[int]:
        """Encode a text whose words are control tokens, by cutting inside them. Only imported vocabularies come here."""
        if (at := self._inside_a_name(text)) is not None:
            return [token for part in (text[:at], text[at:]) for token in self._encode_pieces([part])[0]]
        return [token for token in self._hf.encode(text, add_special_tokens=False).ids if token not in self.control_ids]

    def _inside_a_name(self, text: str) -> int | None:
        """A place within the first occurrence of the longest control token's name in a text; None: it names none."""
        names = sorted((str(self._added[index]["content"]) for index in self.control_ids), key=len, reverse=True)
        return next((text.find(name) + 1 for name in names if len(name) > 1 and name in text), None)

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and, for each, the range of characters it came from. Slower than ``encode``."""
        encoding = self._hf.encode(mend_surrogates(text), add_special_tokens=False)
        ids, spans = list(encoding.ids), list(encoding.offsets)
        if not self._forgeable or self.control_ids.isdisjoint(ids):
            return ids, spans
        if (at := self._inside_a_name(text)) is not None:
            (ids, spans), (more, rest) = self.offsets(text[:at]), self.offsets(text[at:])
            return ids + more, spans + [(low + at, high + at) for low, high in rest]
        pairs = [pair for pair in zip(ids, spans, strict=True) if pair[0] not in self.control_ids]
        return [token for token, _ in pairs], [span for _, span in pairs]

    # Ids to text

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        """Bytes of every id, padding rows included; control ids have none."""
        table = [b""] * self.padded_vocab_size
        decode = _byte_reader(self._raw)
        for token, index in self._hf.get_vocab(with_added_tokens=True).items():
            if index in self.control_ids:
                continue
            table[index] = token.encode() if index in self._added else decode(token)
        return table

    @functools.cached_property
    def byte_lengths(self) -> npt.NDArray[np.uint16]:
        """UTF-8 bytes that an id stands for, (padded_vocab_size,) uint16; 0 for control and padding ids.

        The sum over the tokens of a text is its length in bytes: what turns nats per token into bits per byte.
        """
        return np.array([len(item) for item in self._bytes], dtype=np.uint16)

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one id; empty for control, padding and unknown ids."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def token_name(self, token_id: int) -> str:
        """The id for people: a control token by its name, else its text, broken bytes as U+FFFD."""
        if token_id in self._added:
            return str(self._added[token_id]["content"])
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_id(self, token: str) -> int | None:
        """Id of a control token's name, or None."""
        found = self._hf.token_to_id(token)
        return None if found is None else int(found)

    def decode(self, ids: Iterable[int], *, control: bool = False) -> str:
        """Text of ids; bytes that are no UTF-8 come out as U+FFFD.

        Args:
            ids: token ids.
            control: write control tokens by name instead of leaving them out.
        """
        if control:
            raw = b"".join(
                self.token_name(i).encode() if i in self.control_ids else self.token_bytes(i) for i in map(int, ids)
            )
        else:
            raw = b"".join(map(self.token_bytes, map(int, ids)))
        return raw.decode("utf-8", "replace")

    def stream(self) -> StreamDecoder:
        """A fresh incremental decoder."""
        return StreamDecoder(self.token_bytes)

    # Chats

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> chat.Rendered:
        """Ids and loss mask of a chat; see ``chat.py``. Tools are shown by templates that know them; ours does not."""
        return self._renderer([messages], add_generation_prompt, tools)[0]

    def render_batch(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], add_generation_prompt: bool = False
    ) -> list[chat.Rendered]:
        """``render`` for many chats, encoded together."""
        return self._renderer(conversations, add_generation_prompt, ())


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(path)) from error
    return found if isinstance(found, dict) else {}


def _config_template(config: Mapping[str, Any]) -> str | None:
    found = config.get("chat_template")
    if isinstance(found, list):  # several named templates
        found = next((item.get("template") for item in found if item.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _special_names(config: Mapping[str, Any]) -> dict[str, str]:
    names = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(key)
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            names[key] = value
    return names


def _leading_special(processor: Any) -> int | None:
    """The id that a TemplateProcessing post-processor puts first, if any."""
    for item in [processor, *((processor or {}).get("processors") or ())] if isinstance(processor, dict) else []:
        single = item.get("single") or [] if item.get("type") == "TemplateProcessing" else []
        if single and "SpecialToken" in single[0]:
            return int(item["special_tokens"][single[0]["SpecialToken"]["id"]]["ids"][0])
    return None


def _may_forge(raw: Mapping[str, Any], names: set[str]) -> bool:
    """Whether plain text could reach a control id: only through a merge that yields one, or a lookup of whole words."""
    model = raw.get("model") or {}
    if model.get("type") != "BPE" or model.get("ignore_merges"):
        return True
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or ())
    return any("".join(pair) in names for pair in pairs) or any(len(name) == 1 for name in names)


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, character to byte (openai/gpt-2, encoder.py)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in plain}
    for shift, byte in enumerate(byte for byte in range(256) if byte not in set(plain)):
        table[chr(256 + shift)] = byte
    return table


def _byte_reader(raw: Mapping[str, Any]) -> Any:
    alphabet = _byte_alphabet()

    def byte_level(token: str) -> bytes:
        try:
            return bytes(alphabet[char] for char in token)
        except KeyError:
            return token.encode()

    def sentence_piece(token: str) -> bytes:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    is_byte_level = any('"ByteLevel"' in json.dumps(raw.get(part)) for part in ("decoder", "pre_tokenizer"))
    return byte_level if is_byte_level else sentence_piece

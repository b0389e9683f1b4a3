"""The vocabulary: which texts a byte-level BPE learns from, which ids are reserved, and the files it is kept in.

Knows the training side only; ``tokenizer.py`` loads what is written here.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir
from gptwright.core.progress import progress, say
from gptwright.tokens.template import CHAT_TEMPLATE

EOS = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
TOOL_CALL = "<|tool_call|>"
TOOL_RESULT = "<|tool_result|>"
SPECIALS = (EOS, IM_START, IM_END, TOOL_CALL, TOOL_RESULT, "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>")
"""Ids 0 to 7 of every tokenizer trained here; the ids are part of the disk format."""

SMALLEST_VOCAB = len(SPECIALS) + 256

# The pre-tokenizer that llama.cpp runs under the name "qwen2" (src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_QWEN2). Qwen's
# own file says (?i:'s|'t|...), which in Oniguruma also folds U+017F (long s) onto s; llama.cpp spells the cases out.
# We take llama.cpp's spelling, so that an exported model splits every text the same there and here.
PRE_TOKENIZER_NAME = "qwen2"
PRE_TOKENIZER_REGEX = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Cuts a text into words, and those into bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZER_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )


# Longer tokens are rulers ("------") and boilerplate; they cost a row of the embedding and are seen too seldom to learn.
_MAX_TOKEN_BYTES = 32
# A pair seen once would give a row that is trained on one context.
_MIN_PAIR_COUNT = 2
# A run of this many letters is no word in any script (Chinese and Thai break at punctuation and marks): base64, hex, noise.
# BPE training visits every distinct word at each merge, so one such line of megabytes would take hours.
_NOISE = re.compile(r"[^\W\d_]{512,}")
_PIECE_CHARS = 100_000


def learn_bpe(texts: Iterable[str], vocab_size: int, out_dir: Path) -> int:
    """Train a byte-level BPE and write its directory in one step: a killed training leaves no half tokenizer.

    Args:
        texts: training part of the corpus only; read once, in order.
        vocab_size: ids wanted, the 8 control ids and 256 bytes included.
        out_dir: replaced when it exists; holds tokenizer.json, tokenizer_config.json, special_tokens_map.json and
            chat_template.jinja.

    Returns:
        The vocabulary size reached, which is smaller when the corpus has too few repeated pairs (this is said).

    Raises:
        UserError: vocab_size cannot hold the bytes, or there is no text at all.
    """
    if vocab_size < SMALLEST_VOCAB:
        raise UserError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {len(SPECIALS)} control tokens need {SMALLEST_VOCAB}",
            where="[tokenizer] vocab_size",
            fix="Use 1024 or more; 4096 to 8192 suits a model of a few million parameters",
        )
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_PAIR_COUNT,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=_MAX_TOKEN_BYTES,
    )
    seen = 0
    with progress("tokenizer", unit="B") as bar:

        def feed() -> Iterator[str]:
            nonlocal seen
            for text in texts:
                for piece in training_pieces(text):
                    seen += len(piece)
                    bar.advance(len(piece))
                    yield piece

        tokenizer.train_from_iterator(feed(), trainer=trainer)
    if not seen:
        raise UserError(
            "there is no text to train a tokenizer on", where="corpus", fix="Add documents: gptwright data add SOURCE"
        )
    size = int(tokenizer.get_vocab_size())
    if size < vocab_size:
        say(
            f"tokenizer: {size:,} tokens instead of {vocab_size:,}: the corpus ({seen / 1e6:.2f} M characters) has no more "
            "pairs that occur twice."
        )
    with atomic_dir(out_dir) as folder:
        write_tokenizer_files(folder, tokenizer.to_str(pretty=False))
    return size


def training_pieces(text: str) -> Iterator[str]:
    """A text in pieces of bounded size for training, without letter runs that cannot be words."""
    text = mend_surrogates(text)
    for piece in split_text(text, _PIECE_CHARS):
        yield _NOISE.sub(" ", piece)


def mend_surrogates(text: str) -> str:
    r"""Text that UTF-8 can hold: surrogate pairs joined, lone surrogates (JSON's \ud800) as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def split_text(text: str, limit: int) -> list[str]:
    """Cut a text into pieces of at most ``limit`` characters whose tokens, joined, are those of the whole text.

    A cut falls after a line break before a non-space, or between a letter and a space before a letter: there the
    pre-tokenizer always starts a new word, whatever came before. A piece without such a place is cut hard, which changes
    the tokens around the cut and never the bytes; it keeps a line of gigabytes linear in time and bounded in memory.
    """
    if len(text) <= limit:
        return [text]
    pieces = []
    start = 0
    while len(text) - start > limit:
        end = _cut(text, start + limit // 2, start + limit)
        pieces.append(text[start:end])
        start = end
    pieces.append(text[start:])
    return pieces


def _cut(text: str, low: int, high: int) -> int:
    at = high
    while (at := text.rfind("\n", low, at)) >= 0:
        if at + 1 < len(text) and not text[at + 1].isspace():
            return at + 1
    at = high
    while (at := text.rfind(" ", low, at)) >= 0:
        if text[at - 1].isalpha() and at + 1 < len(text) and text[at + 1].isalpha():
            return at
    return high


def write_tokenizer_files(folder: Path, tokenizer_json: str) -> None:
    """Write the four files that transformers, vLLM and llama.cpp's tools read."""
    tokens: dict[str, Any] = {"eos_token": EOS, "pad_token": EOS, "additional_special_tokens": list(SPECIALS[1:])}
    config = {
        # The generic class: it takes tokenizer.json as it is. A family's own class would rebuild the pre-tokenizer from code.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "unk_token": None,
        **tokens,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in enumerate(SPECIALS)
        },
    }
    written = {
        "tokenizer.json": tokenizer_json,
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        "special_tokens_map.json": json.dumps(tokens, indent=2, ensure_ascii=False) + "\n",
        "chat_template.jinja": CHAT_TEMPLATE,
    }
    for name, content in written.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")

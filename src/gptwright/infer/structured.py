"""Answers of a given form: JSON schema, regular expression or Lark grammar, kept token by token (extra ``serve``: llguidance).

A form is compiled once on the caller's thread, within limits; the scheduler asks its guide before each token which ids may follow. Control
tokens stay out of reach whatever a grammar says, apart from those that the form itself names and those that end an answer.
"""

import importlib
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.infer.config import Form

LONGEST = 200_000
"""Longest schema, expression or grammar. Characters."""

# Work that one form may cause. Measured with 49,152 ids and 40 hostile forms: what is refused is refused within 20 ms, what is kept costs at
# most 12 ms of compiling-as-it-goes for one token; a usual schema costs 0.1 ms.
_LIMITS = {
    "initial_lexer_fuel": 500_000,  # building the expressions
    "step_lexer_fuel": 100_000,  # one mask
    "step_max_items": 25_000,  # one mask, parser
    "max_items_in_row": 1_000,  # branches at one place
    "max_lexer_states": 20_000,  # 1-2 kB each
    "max_grammar_size": 100_000,  # symbols
    "verbose_errors": False,
}
# Between the parts of JSON: nothing, a space, or a new line with its indentation. Without a bound a small model may emit white space for ever.
SPACE = r"(\n {0,16}| )?"
_AHEAD = 512  # bytes of text that must follow that are looked at
_KEPT = 16  # compiled forms; a service sends the same few all the time
_WHAT = {"json_schema": "the JSON schema", "regex": "the regular expression", "lark": "the grammar"}


class FormError(UserError):
    """A form that cannot be kept.

    Attributes:
        param: the field that asked for it.
        code: for programs.
    """

    code = "invalid_value"

    def __init__(self, form: Form, why: str, fix: str | None = None) -> None:
        if fix is None and ("too" in why or "cannot be kept" in why):
            fix = "Make it simpler"
        super().__init__(f"{_WHAT[form.kind]} {why}", fix=fix)
        self.param = form.asked_by


class TokenizerLike(Protocol):
    """What is needed of a tokenizer."""

    @property
    def stop_ids(self) -> Collection[int]: ...
    @property
    def control_ids(self) -> Collection[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def token_name(self, token_id: int) -> str: ...
    def encode(self, text: str) -> list[int]: ...


class Guide:
    """Walks one answer through its form."""

    def __init__(self, matcher: Any, reachable: "np.typing.NDArray[np.bool_]", form: Form) -> None:
        self._matcher, self._reachable, self._form = matcher, reachable, form
        self._error: str | None = None

    def allowed(self) -> Tensor:
        """(V,) bool, the ids that may come next. All that are reachable once there is an ``error``."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        found = bits[: len(self._reachable)].astype(np.bool_) & self._reachable
        if self._matcher.is_error():
            self._error = _first_line(self._matcher.get_error())
        elif not found.any():
            self._error = "no token of the vocabulary can continue it"
        return torch.from_numpy(self._reachable if self._error is not None else found)

    def accept(self, token: int) -> None:
        """A token was generated; it is one of those that were allowed."""
        if not self._matcher.consume_token(token):
            self._error = self._error or _first_line(self._matcher.get_error())

    @property
    def complete(self) -> bool:
        """Whether nothing can follow."""
        return self._error is None and bool(self._matcher.is_stopped())

    @property
    def error(self) -> FormError | None:
        """Why the form cannot be kept any further."""
        if self._error is None:
            return None
        return FormError(self._form, f"cannot be kept: {self._error}")


class Forms:
    """Compiles forms for one tokenizer and keeps the latest. Thread-safe.

    Args:
        tokenizer: of the model.
        vocab_size: ids that can be sampled.
    """

    def __init__(self, tokenizer: TokenizerLike, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._lock = threading.Lock()
        self._vocabulary: Any = None
        self._compiled: OrderedDict[Form, Any] = OrderedDict()

    def open(self, form: Form) -> Guide:
        """A fresh guide.

        Raises:
            FormError: the form is faulty, too large, or asks for what cannot be kept; or llguidance is not installed.
        """
        try:
            library = importlib.import_module("llguidance")
        except ImportError as error:
            fix = "pip install 'gptwright[serve]'"
            raise FormError(form, "needs llguidance, which is not installed", fix) from error
        if len(form.text) > LONGEST:
            raise FormError(form, f"is too long: more than {LONGEST} characters")
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = _vocabulary(library, self._tokenizer, self._vocab_size)
            matcher = self._compiled.get(form)
            if matcher is not None:
                self._compiled.move_to_end(form)
        if matcher is None:  # outside the lock: a costly form must not hold up the others
            matcher = _compile(library, self._vocabulary, form, self._reachable(form))
            with self._lock:
                self._compiled[form] = matcher
                while len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
        return Guide(matcher.deep_copy(), self._reachable(form), form)

    def _reachable(self, form: Form) -> "np.typing.NDArray[np.bool_]":
        ids = np.ones(self._vocab_size, dtype=np.bool_)
        closed = set(self._tokenizer.control_ids) - set(self._tokenizer.stop_ids) - set(form.control_ids)
        ids[[token for token in closed if token < self._vocab_size]] = False
        return ids


def _vocabulary(library: Any, tokenizer: TokenizerLike, vocab_size: int) -> Any:
    """The bytes of every id, as llguidance wants them; control tokens by name, told apart from text."""
    control = {token for token in (*tokenizer.control_ids, *tokenizer.stop_ids) if token < vocab_size}

    words = tuple(
        tokenizer.token_name(token).encode() if token in control else tokenizer.token_bytes(token)
        for token in range(vocab_size)
    )
    ids = {word: token for token, word in enumerate(words) if word and token not in control}
    longest = max(map(len, ids), default=1)

    def cut(text: bytes) -> list[int]:
        """How a text that must follow is cut into tokens. Only the first is used, so the rest (a constant may have 190,000 characters, at
        every token again) need not be encoded; and where the tokenizer would change the text, its longest known beginnings are taken."""
        text = text[:_AHEAD].decode("utf-8", "ignore").encode()
        found = tokenizer.encode(text.decode())
        if b"".join(map(tokenizer.token_bytes, found)) == text and all(token < vocab_size for token in found):
            return found
        found, at = [], 0
        while at < len(text):
            size = next((n for n in range(min(longest, len(text) - at), 0, -1) if text[at : at + n] in ids), 0)
            if not size:
                break
            found.append(ids[text[at : at + size]])
            at += size
        return found

    class Words:
        eos_token_id = next(iter(tokenizer.stop_ids))
        bos_token_id = None
        tokens = words
        special_token_ids = tuple(sorted(control))

        def __call__(self, text: bytes) -> list[int]:
            return cut(text)

    ends = sorted(token for token in tokenizer.stop_ids if token < vocab_size)
    return library.LLTokenizer(library.TokenizerWrapper(Words()), n_vocab=vocab_size, eos_token=ends)


def _compile(library: Any, vocabulary: Any, form: Form, reachable: "np.typing.NDArray[np.bool_]") -> Any:
    matchers = library.LLMatcher
    try:
        if form.kind == "json_schema":
            options = {"whitespace_pattern": SPACE, "whitespace_flexible": True, "lenient": form.lenient}
            grammar = matchers.grammar_from_json_schema(form.text, overrides=options)
        else:
            grammar = getattr(matchers, f"grammar_from_{form.kind}")(form.text)
    except ValueError as error:
        raise FormError(form, f"cannot be read: {_first_line(str(error))}") from error
    matcher = matchers(vocabulary, grammar, log_level=0, limits=library.LLParserLimits(**_LIMITS))
    if matcher.is_error():
        raise FormError(form, f"is refused: {_first_line(matcher.get_error())}")
    # What cannot even begin is the caller's fault, and they should hear of it now.
    trial = Guide(matcher.deep_copy(), reachable, form)
    trial.allowed()
    if trial.error is not None:
        raise trial.error
    return matcher


def _first_line(text: str) -> str:
    """The head of a message that may hold a whole grammar."""
    line = next((line for line in text.splitlines() if line.strip()), "it is too complex")
    return line.strip()[:300]

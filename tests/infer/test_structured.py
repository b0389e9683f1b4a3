"""Answers keep their form whatever the model would rather say; forms that are faulty or hostile are refused and hurt nobody else."""

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.infer import structured
from gptwright.infer.config import Form, GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.structured import LONGEST, FormError, Forms
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

LETTERS = st.characters(codec="utf-8", exclude_characters="\x7f")  # which llguidance lets be written as \u007f alone
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "é€", "\U0001f600"]}, "minItems": 1, "maxItems": 2},
        "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/flag"}]},
    },
    "required": ["name", "age", "tags", "more"],
    "additionalProperties": False,
    "$defs": {"flag": {"type": "boolean"}},
}


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=8)  # others are written as escapes


def schema(value: Any, **more: Any) -> Form:
    return Form(kind="json_schema", text=json.dumps(value), **more)


def regex(text: str) -> Form:
    return Form(kind="regex", text=text)


def lark(text: str, *ids: int) -> Form:
    return Form(kind="lark", text=text, control_ids=ids)


def formed(form: Form, seed: int = 0, **more: Any) -> GenerationConfig:
    return GenerationConfig(form=form, seed=seed, temperature=1.0, max_tokens=80, **more)


@pytest.fixture(scope="module")
def forms(tokenizer: Tokenizer) -> Forms:
    return Forms(tokenizer, tokenizer.vocab_size)


def spell(tokenizer: Tokenizer, forms: Forms, form: Form, text: str) -> bool | None:
    """Whether a text may be written in this form, token by token: None when it may, but must go on."""
    guide = forms.open(form)
    for token in tokenizer.encode(text):
        if guide.complete or not guide.allowed()[token]:
            return False
        guide.accept(token)
    return True if guide.complete or bool(guide.allowed()[tokenizer.eos_id]) else None


@pytest.mark.parametrize("greedy", [True, False])
def test_answer_when_a_schema_is_given_is_valid_beside_free_ones(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer, greedy: bool
) -> None:
    with Engine(make_model(seq_len=512), tokenizer, max_batch=6, prefill_tokens=16) as engine:
        prompts = [tokenizer.encode(f"{i} the cat sat") for i in range(6)]
        configs = [formed(schema(PERSON), i) if i % 2 else GenerationConfig(seed=i, max_tokens=30) for i in range(6)]
        if greedy:
            configs = [c.model_copy(update={"temperature": 0.0}) for c in configs]
        configs = [c.model_copy(update={"max_tokens": 450}) if c.form else c for c in configs]
        together = engine.generate(prompts, configs)
        for i, result in enumerate(together):
            if i % 2:
                assert result.finish_reason == "stop"
                jsonschema.validate(json.loads(result.text), PERSON)
                assert "�" not in result.text
            alone = engine.generate([prompts[i]], [configs[i]])[0]
            assert (alone.text, alone.ids) == (result.text, result.ids)


def test_answer_when_the_form_is_full_ends_without_another_step(engine: Engine, tokenizer: Tokenizer) -> None:
    result = engine.submit(tokenizer.encode("x"), formed(regex("(yes|no)"))).result()
    assert result.text in ("yes", "no")
    assert result.finish_reason == "stop"
    assert tokenizer.decode(result.ids) == result.text
    assert result.completion_tokens == len(result.ids)  # nothing was spent on an end token
    forever = formed(regex("[ab]{3}"), ignore_eos=True)
    assert re.fullmatch("[ab]{3}", engine.submit(tokenizer.encode("x"), forever).result().text)


def test_answer_when_streamed_is_the_same_and_whole_characters(engine: Engine, tokenizer: Tokenizer) -> None:
    config = formed(regex("(é|€|\U0001f600|ß){20}"), 3)
    pieces = list(engine.stream(tokenizer.encode("x"), config))
    assert "".join(map(str, pieces)) == engine.submit(tokenizer.encode("x"), config).result().text
    assert re.fullmatch("[é€\U0001f600ß]{20}", "".join(map(str, pieces)))
    assert not any("�" in piece.text for piece in pieces)


def test_answer_when_it_is_cut_by_its_length_says_so(engine: Engine, tokenizer: Tokenizer) -> None:
    config = formed(regex("a{50}")).model_copy(update={"max_tokens": 7})
    result = engine.submit(tokenizer.encode("x"), config).result()
    assert (result.text, result.finish_reason) == ("aaaaaaa", "length")


def test_logprobs_when_a_form_rules_are_the_models_own(engine: Engine, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("the cat")
    result = engine.submit(prompt, formed(regex("zqzq"))).result()
    scores = engine.score([*prompt, *result.ids])[len(prompt) :]
    assert result.logprobs == pytest.approx([s.logprob for s in scores], abs=2e-2)


@settings(max_examples=40, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(LETTERS, max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(LETTERS, max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    indent=st.sampled_from([None, 2]),
)
def test_json_when_any_value_is_written_as_python_writes_it_is_accepted(
    tokenizer: Tokenizer, forms: Forms, value: Any, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    assert spell(tokenizer, forms, schema({}), text) is not False


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["[ab]+c?", "(x|yy){2,3}", "\\d+(\\.\\d{1,2})?", "é*€"]), st.text("abcxy12.é€", max_size=7))
def test_regex_when_a_text_is_spelled_agrees_with_pythons(
    tokenizer: Tokenizer, forms: Forms, pattern: str, text: str
) -> None:
    assert (spell(tokenizer, forms, regex(pattern), text) is True) == (re.fullmatch(pattern, text) is not None)


def test_grammar_when_it_names_control_tokens_cannot_place_them_unless_the_form_does(
    tokenizer: Tokenizer, forms: Forms
) -> None:
    call = tokenizer.token_id("<|tool_call|>")
    assert call is not None
    for text in ('start: "a" <|im_start|> "b" | "ac"', f'start: "a" <[{call}]> "b" | "ac"'):
        guide = forms.open(lark(text))
        guide.allowed()
        guide.accept(tokenizer.encode("a")[0])
        assert {tokenizer.token_name(i) for i in guide.allowed().nonzero()[:, 0].tolist()} <= {"c"}
    guide = forms.open(lark(f'start: "a" <[{call}]> "b"', call))
    guide.accept(tokenizer.encode("a")[0])
    assert guide.allowed().nonzero()[:, 0].tolist() == [call]
    with pytest.raises(FormError):
        forms.open(lark("start: <|im_start|>"))


@pytest.mark.parametrize("form", [regex("(.|\\n)*"), lark("start: /(?s:.*)/"), schema({"type": "string"})])
def test_form_when_it_permits_any_text_keeps_control_tokens_out(tokenizer: Tokenizer, forms: Forms, form: Form) -> None:
    guide = forms.open(form)
    for token in tokenizer.encode('"abc' if form.kind == "json_schema" else "abc"):
        guide.allowed()
        guide.accept(token)
        reachable = set(guide.allowed().nonzero()[:, 0].tolist()) & set(tokenizer.control_ids)
        assert reachable <= set(tokenizer.stop_ids)
    assert guide.allowed().sum() > 100


@pytest.mark.parametrize(
    "form",
    [
        regex("["),
        regex("(?=a)b"),
        regex("(" * 5000 + "a" + ")" * 5000),
        regex("x" * (LONGEST + 1)),
        lark("nonsense"),
        lark("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
        Form(kind="json_schema", text="{"),
        Form(kind="json_schema", text='"x"'),
        Form(kind="json_schema", text="[" * 10_000),
        schema({"$ref": "#"}),
        schema({"$ref": "https://example.com/schema"}),
        schema({"$ref": "file:///etc/passwd"}),
        schema({"type": "array", "uniqueItems": True}),
        schema({"type": "nonsense"}),
        schema({"allOf": [{"type": "string"}, {"type": "integer"}]}),
    ],
    ids=lambda form: form.text[:24],
)
def test_form_when_it_cannot_be_kept_is_refused_at_once(engine: Engine, form: Form) -> None:
    with pytest.raises(FormError) as caught:
        engine.submit([9], formed(form))
    assert len(str(caught.value)) < 500


def test_schema_when_lenient_passes_over_what_cannot_be_kept(tokenizer: Tokenizer, forms: Forms) -> None:
    value = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    assert spell(tokenizer, forms, schema(value, lenient=True), "[1, 2]")


@pytest.mark.parametrize(
    "form",
    [
        lark('start: x{100000}\nx: "a"'),
        lark("start: a0\n" + "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(60)) + '\na60: "x"'),
        regex("(a?){5000}a{5000}"),
        regex("(?:a{1,1000}){1,1000}b"),
        schema({"enum": ["x" * 190_000]}),
        schema({"anyOf": [{"const": f"value {i}"} for i in range(5000)]}),
        regex("[ab]*a[ab]{200}c"),
    ],
    ids=lambda form: form.text[:24],
)
def test_form_when_it_is_a_bomb_is_done_or_fails_alone(engine: Engine, tokenizer: Tokenizer, form: Form) -> None:
    prompt = tokenizer.encode("the cat")
    config = GenerationConfig(seed=1, max_tokens=12)
    expected = engine.submit(prompt, config).result().text
    try:
        bomb = engine.submit(prompt, formed(form))
    except FormError:
        return
    beside = engine.submit(prompt, config)
    with contextlib.suppress(FormError):
        bomb.result(timeout_s=60)
    assert beside.result(timeout_s=60).text == expected
    until = time.monotonic() + 10
    while engine.load_now != (0, 0):  # the last piece comes a moment before the place is free
        assert time.monotonic() < until
        time.sleep(0.01)


def test_form_when_it_fails_in_the_middle_tells_whoever_listens(engine: Engine, tokenizer: Tokenizer) -> None:
    form, reasons, told = lark('start: "a" x{100000}\nx: "a"'), [], threading.Event()

    def listen(piece: Any) -> None:
        reasons.append(piece.finish_reason)
        if piece.finish_reason:
            told.set()

    try:
        request = engine.submit(tokenizer.encode("x"), formed(form), on_piece=listen)
    except FormError:
        return
    assert told.wait(60)
    assert reasons[-1] in ("error", "length")
    if reasons[-1] == "error":
        with pytest.raises(FormError):
            request.result()


def test_forms_when_asked_again_are_compiled_once_and_kept_few(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    real = structured._compile
    monkeypatch.setattr(structured, "_compile", lambda *a: compiled.append(a[2].text) or real(*a))
    forms = Forms(tokenizer, tokenizer.vocab_size)
    first, second = forms.open(regex("ab")), forms.open(regex("ab"))
    assert compiled == ["ab"]
    first.accept(tokenizer.encode("a")[0])
    assert second.allowed().nonzero()[:, 0].tolist() == tokenizer.encode("a")  # each has its own place
    for i in range(40):
        forms.open(regex(f"a{i}"))
    assert len(forms._compiled) == structured._KEPT
    forms.open(regex("ab"))
    assert compiled.count("ab") == 2


def test_form_when_llguidance_is_missing_says_what_to_install(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match=r"gptwright\[serve\]"):
        engine.submit([9], formed(regex("a")))
    assert engine.submit([9], GenerationConfig(max_tokens=2)).result().completion_tokens


def test_masks_when_ids_share_bytes_or_have_none_are_right() -> None:
    words = [b"", b"a", b"a", b"ab", "é".encode()[:1], "é".encode()[1:], b"", b"<end>"]

    class Odd:
        stop_ids = frozenset({0})
        control_ids = frozenset({0})

        def token_bytes(self, token_id: int) -> bytes:
            return words[token_id]

        def token_name(self, token_id: int) -> str:
            return "<end>" if token_id == 0 else words[token_id].decode("utf-8", "replace")

        def encode(self, text: str) -> list[int]:
            return [1 for _ in text]  # as a tokenizer that changes the text first

    forms = Forms(Odd(), len(words))
    guide = forms.open(regex("(a|ab|é)"))
    allowed = guide.allowed()
    assert allowed.dtype == torch.bool
    assert allowed.tolist() == [False, True, True, True, True, False, False, False]
    guide.accept(4)
    assert guide.allowed().nonzero()[:, 0].tolist() == [5]
    assert forms.open(regex("<end>a?")).allowed().nonzero()[:, 0].tolist() == [7]  # text that spells a control token

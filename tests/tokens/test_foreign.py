"""Imported models: their own vocabulary and template behind the same API, and still nobody forges a control token."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from gptwright.core.errors import UserError
from gptwright.tokens.sft import SftPlan
from gptwright.tokens.tokenizer import Tokenizer

from .strategies import fragments, hostile_texts

# SmolLM2's own template (Apache-2.0): a default system message, no trimming.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful "
    "AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Another shape altogether: a start token, headers between control tokens, trimmed contents.
HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|head|>' + m['role'] + '<|/head|>\n\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)


def gpt2_like(texts: list[str], specials: list[str]) -> HfTokenizer:
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def smol(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smol")
    gpt2_like(texts[:5], ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]).save(
        str(folder / "tokenizer.json")
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "bos_token": "<|im_start|>",
        "chat_template": SMOLLM2,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def llama(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = gpt2_like(texts[:5], ["<|begin|>", "<|end|>", "<|head|>", "<|/head|>", "<|eot|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    raw = json.loads(tokenizer.to_str())
    raw["model"]["ignore_merges"] = True
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": {"__type": "AddedToken", "content": "<|eot|>"},
        "bos_token": {"__type": "AddedToken", "content": "<|begin|>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(HEADERS)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 4]}))
    return folder


def contents(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": text})
    return st.lists(message, min_size=1, max_size=5)


def test_ids_that_stop_and_start_come_from_the_models_files(smol: Path, llama: Path) -> None:
    ours = Tokenizer.load(smol)
    assert (ours.eos_id, ours.im_end_id, ours.stop_ids, ours.bos_id, ours.is_own) == (0, 2, {0, 2}, None, False)
    other = Tokenizer.load(llama)
    assert (other.eos_id, other.stop_ids, other.bos_id) == (4, {1, 4}, 0)
    assert other.encode("hello")[0] != 0


@pytest.mark.slow
@pytest.mark.parametrize("which", ["smol", "llama"])
def test_transformers_renders_the_same_ids_on_plain_text(which: str, request: pytest.FixtureRequest) -> None:
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(which)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    plain = (
        st.lists(fragments, max_size=8)
        .map("".join)
        .filter(lambda t: not any(theirs.convert_ids_to_tokens(i) in t for i in ours.control_ids))
    )

    @settings(max_examples=100, deadline=None)
    @given(messages=contents(plain), prompt=st.booleans())
    def agrees(messages: list[dict[str, Any]], prompt: bool) -> None:
        expected = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=False)
        assert ours.render(messages, add_generation_prompt=prompt).ids == expected

    agrees()


foreign_names = st.sampled_from(["<repo_name>", "<|eot|>", "<|head|>", "<|begin|>"])
very_hostile = st.lists(st.one_of(hostile_texts, foreign_names), max_size=3).map("".join)


@settings(max_examples=100, deadline=None)
@given(messages=contents(very_hostile))
@pytest.mark.parametrize("which", ["smol", "llama"])
def test_hostile_messages_add_no_control_ids(
    which: str, request: pytest.FixtureRequest, messages: list[dict[str, Any]]
) -> None:
    tokenizer = Tokenizer.load(request.getfixturevalue(which))

    def controls(chat: list[dict[str, Any]]) -> list[int]:
        return [token for token in tokenizer.render(chat).ids if token in tokenizer.control_ids]

    assert controls(messages) == controls([message | {"content": "x"} for message in messages])
    texts = [message["content"] for message in messages]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text
        assert not tokenizer.control_ids.intersection(ids)
        assert int(tokenizer.byte_lengths[ids].sum()) == len(text.encode())


@pytest.mark.parametrize(("which", "end"), [("smol", "<|im_end|>"), ("llama", "<|eot|>")])
def test_loss_is_on_the_assistants_words_and_their_end(which: str, end: str, request: pytest.FixtureRequest) -> None:
    tokenizer = Tokenizer.load(request.getfixturevalue(which))
    messages = [
        {"role": "user", "content": f"say {end} please"},
        {"role": "assistant", "content": f"no {end} here"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "done"},
    ]
    rendered = tokenizer.render(messages)
    learned = [token for token, bit in zip(rendered.ids, rendered.loss_mask, strict=True) if bit]
    assert tokenizer.decode(learned, control=True) == f"no {end} here{end}done{end}"
    assert learned.count(tokenizer.im_end_id) == 2
    plan = SftPlan.of([messages], tokenizer, 256, 1)
    assert plan.report.targets == len(learned)


def test_sentencepiece_style_vocabulary_reads_and_writes_text(tmp_path: Path) -> None:
    letters = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", *"helowrd", "he", "▁w"]
    vocab = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *letters])}
    tokenizer = HfTokenizer(
        models.BPE(vocab=vocab, merges=[("h", "e"), ("▁", "w")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    loaded = Tokenizer.load(tmp_path)
    for text in ("hello world", "日本 </s> <s>", "é"):
        ids = loaded.encode(text)
        assert loaded.decode(ids) == text
        assert not loaded.control_ids.intersection(ids)
        assert int(loaded.byte_lengths[ids].sum()) == len(text.encode())
    with pytest.raises(UserError, match="no chat template"):
        loaded.render([{"role": "user", "content": "hi"}])


def test_words_that_are_whole_control_tokens_cannot_pass_either(tmp_path: Path) -> None:
    # With ignore_merges a whole pre-token is looked up in the vocabulary; without a pre-tokenizer that is the whole text.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(["<eos>", *alphabet])}
    tokenizer = HfTokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    loaded = Tokenizer.load(tmp_path)
    for text in ("<eos>", "a<eos>", "<eos><eos>"):
        assert 0 not in loaded.encode(text)
        assert loaded.decode(loaded.encode(text)) == text


def test_save_of_an_imported_tokenizer_keeps_ids_and_template(smol: Path, tmp_path: Path) -> None:
    loaded = Tokenizer.load(smol)
    loaded.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.hash == loaded.hash
    messages = [{"role": "user", "content": "hi"}]
    assert again.render(messages, True) == loaded.render(messages, True)

"""A GGUF file written here is read by transformers, by llama.cpp where it is installed, and here, as the model it was made from."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tests.model.families import KINDS, ids_of, saved
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from gptwright.core.errors import UserError
from gptwright.model import llamacpp
from gptwright.model.compare import probe, transformers_logits
from gptwright.model.gguf import export_gguf, import_gguf, model_from_gguf
from gptwright.model.gguf_header import Gguf, read_gguf
from gptwright.model.io import load_model, read_eos_ids, save_model
from gptwright.model.pretokenizers import PRE_TOKENIZERS, pre_tokenizer_name
from gptwright.model.transformer import Transformer
from gptwright.model.vocab import vocab_from_gguf, vocab_to_gguf

TEXT = (
    "the cat sat on the mat and 12 hats, isn't it? the hat of the cat; when morning comes, she'll walk along rivers "
    * 20
)
PROBES = ["the cat sat, isn't it? 12 345\n\n  x", "héllo ٣٤٥ 日本語 <|im_end|> ’s", "", " ", "a\tb  c\r\n"]


def byte_level_tokenizer(folder: Path, pre: str = "qwen2") -> Path:
    """A tokenizer directory like those trained here: control tokens first, 300 ids."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = HfTokenizer(models.BPE())
    steps: list[Any] = []
    for step in PRE_TOKENIZERS[pre]:
        if step["type"] == "Digits":
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        elif step["type"] == "Split":
            from tokenizers import Regex

            steps.append(pre_tokenizers.Split(Regex(step["pattern"]["Regex"]), "isolated"))
        else:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=step["use_regex"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    )
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2], "pad_token_id": 0}))
    return folder


def sentence_piece_tokenizer(folder: Path) -> Path:
    """A tokenizer directory like TinyLlama's: BPE over characters with ▁ for spaces, and bytes for what is unknown."""
    folder.mkdir(parents=True)
    tokenizer = HfTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=320, show_progress=False, special_tokens=special)
    tokenizer.train_from_iterator(TEXT.split(","), trainer)
    data = json.loads(tokenizer.to_str())
    # Sentencepiece's own files list every split of a piece, in the order of the pieces, and keep bytes out of added tokens.
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < 3]
    vocab = {token: i for token, i in data["model"]["vocab"].items() if i >= 259}
    data["model"]["merges"] = [
        [token[:cut], token[cut:]]
        for token in sorted(vocab, key=vocab.__getitem__)
        for cut in sorted(range(1, len(token)), key=lambda c: (vocab.get(token[:c], -1), vocab.get(token[c:], -1)))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    tokenizer = HfTokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    return folder


@torch.no_grad()
def logits_of(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


def prompt_of(model: Transformer) -> torch.Tensor:
    """Ids that have a token, no more than a window sees."""
    return ids_of(300, t=model.config.window or 40)


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_when_written_in_fp32_is_read_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    model = load_model(saved(kind, tmp_path / "theirs")[1])
    file = export_gguf(model, tmp_path / "m.gguf", byte_level_tokenizer(tmp_path / "tok"), "f32")
    again = load_model(import_gguf(file, tmp_path / "back"))
    assert again.config.vocab_size == 300  # the padding's rows are gone
    assert again.config.rope_scaling == model.config.rope_scaling
    ids = prompt_of(model)
    assert torch.equal(logits_of(again, ids), logits_of(model, ids)[..., :300])
    ours, theirs = (json.loads((tmp_path / name / "tokenizer.json").read_text()) for name in ("tok", "back"))
    assert ours["model"]["merges"] == theirs["model"]["merges"]
    assert ours["model"]["vocab"] == theirs["model"]["vocab"]
    assert read_eos_ids(tmp_path / "back") == [0, 2]
    for name in ("chat_template.jinja",):
        assert (tmp_path / "back" / name).read_text() == (tmp_path / "tok" / name).read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_when_opened_in_transformers_gives_the_same_logits(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = load_model(saved(kind, tmp_path / "theirs")[1])
    file = export_gguf(model, tmp_path / "m.gguf", byte_level_tokenizer(tmp_path / "tok"), "f32")
    config = model_from_gguf(read_gguf(file)).config
    ids, expected = probe(model, prompt_of(model)[0].tolist(), 300)
    assert (transformers_logits(file, config, ids) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(("dtype", "bits"), [("f16", 11), ("bf16", 8), ("q8_0", 7)])
def test_gguf_when_rounded_then_every_weight_is_within_the_formats_error(dtype: Any, bits: int, tmp_path: Path) -> None:
    _, folder = saved("qwen2", tmp_path / "theirs")
    model = load_model(folder)
    file = export_gguf(model, tmp_path / "m.gguf", byte_level_tokenizer(tmp_path / "tok"), dtype)
    again = load_model(import_gguf(file, tmp_path / "back")).state_dict()
    kinds = {tensor.kind.name for tensor in read_gguf(file).tensors.values()}
    assert kinds == ({"F32", dtype.upper()} if dtype != "q8_0" else {"F32", "F16", "Q8_0"})  # 48 is no multiple of 32
    for name, value in model.state_dict().items():
        if name in ("embedding.weight", "head.weight"):
            value = value[:300]
        if value.ndim == 1:
            assert torch.equal(again[name], value)
        else:
            assert 0 < (again[name] - value).abs().max() <= value.abs().max() * 2.0**-bits


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "tekken"])
def test_tokenizer_when_written_to_gguf_and_back_gives_the_same_ids(pre: str, tmp_path: Path) -> None:
    folder = byte_level_tokenizer(tmp_path / "tok", pre)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["ignore_merges"] = pre in ("llama-bpe", "tekken")
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert pre_tokenizer_name(data, "") == pre
    model = load_model(saved("smollm2", tmp_path / "theirs")[1])
    back = import_gguf(export_gguf(model, tmp_path / "m.gguf", folder), tmp_path / "back")
    ours, theirs = (HfTokenizer.from_file(str(f / "tokenizer.json")) for f in (folder, back))
    for text in PROBES:
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs.encode(text).ids)


def test_sentence_piece_tokenizer_when_written_to_gguf_and_back_gives_the_same_ids(tmp_path: Path) -> None:
    folder = sentence_piece_tokenizer(tmp_path / "tok")
    model = load_model(saved("tinyllama", tmp_path / "theirs")[1])
    file = export_gguf(model, tmp_path / "m.gguf", folder)
    fields = read_gguf(file).fields
    assert fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.add_space_prefix"] is True
    assert fields["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    back = import_gguf(file, tmp_path / "back")
    ours, theirs = (HfTokenizer.from_file(str(f / "tokenizer.json")) for f in (folder, back))
    assert len(ours.encode("the cat sat").ids) < 8  # merges do join
    for text in PROBES:
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs.encode(text).ids)
    assert read_eos_ids(back) == [2]


def test_sentence_piece_tokenizer_when_spelled_with_metaspace_keeps_its_leading_space(tmp_path: Path) -> None:
    folder = sentence_piece_tokenizer(tmp_path / "tok")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["normalizer"] = None
    for scheme in ("first", "never"):
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        (folder / "tokenizer.json").write_text(json.dumps(data))
        fields, size = vocab_to_gguf(folder)
        assert fields["add_space_prefix"] is (scheme == "first")
        back = tmp_path / scheme
        back.mkdir()
        metadata = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
        assert vocab_from_gguf(metadata, back, 64, "x") == [2]
        ours, theirs = (HfTokenizer.from_file(str(f / "tokenizer.json")) for f in (folder, back))
        assert size == 320
        for text in [*PROBES[:2], "a  b ", "x"]:  # begun with a space, SentencePiece and Metaspace differ
            assert ours.encode(text).ids == theirs.encode(text).ids


def test_pre_tokenizer_when_llama_cpp_has_no_name_for_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = byte_level_tokenizer(tmp_path / "tok")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    model = load_model(saved("smollm2", tmp_path / "theirs")[1])
    with pytest.raises(UserError, match=r"tokenizer\.json: llama\.cpp has no name for this pre-tokenizer"):
        export_gguf(model, tmp_path / "out" / "m.gguf", folder)
    assert not (tmp_path / "out").exists()


def test_weights_when_too_large_for_f16_say_which_and_leave_no_file(tmp_path: Path) -> None:
    model = load_model(saved("smollm2", tmp_path / "theirs")[1])
    with torch.no_grad():
        model.blocks[1].feed_forward.down.weight[0, 0] = 1e6  # type: ignore[union-attr,index]
    with pytest.raises(UserError, match=r"blk\.1\.ffn_down\.weight has weights too large for f16.*bf16"):
        export_gguf(model, tmp_path / "out" / "m.gguf", byte_level_tokenizer(tmp_path / "tok"))
    assert not list((tmp_path / "out").iterdir())


QUANTS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


@pytest.mark.parametrize("name", QUANTS)
def test_tensor_when_quantized_by_blocks_is_read_as_the_gguf_package_reads_it(name: str, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (6, 2 * size * (256 // block)), dtype=np.uint8)
    raw.reshape(-1, size)[:, :] &= 0x3B  # no half-precision number of these bytes is infinite
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("x", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(tmp_path / "m.gguf")
    theirs = gguf.GGUFReader(tmp_path / "m.gguf").tensors[0]
    expected = gguf.quants.dequantize(theirs.data, theirs.tensor_type)
    assert file.tensors["x"].shape == (6, 512)
    assert np.isfinite(expected).all()
    assert expected.std() > 0
    assert np.array_equal(file.read("x"), expected)


def test_gguf_when_cut_anywhere_or_with_one_byte_changed_is_read_or_refused_in_words(tmp_path: Path) -> None:
    model = load_model(saved("smollm2", tmp_path / "theirs")[1])
    whole = export_gguf(model, tmp_path / "m.gguf", byte_level_tokenizer(tmp_path / "tok")).read_bytes()
    head = whole.index(b"output_norm") + 400
    broken = tmp_path / "broken.gguf"
    for cut in [0, 3, 8, 20, 40, head // 2, head, len(whole) - 40]:
        broken.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"broken\.gguf: not a readable GGUF file"):
            import_gguf(broken, tmp_path / "b")
    rng = np.random.default_rng(1)
    refused = 0
    for place in [*range(4, 24), *rng.integers(24, head, 60)]:
        data = bytearray(whole)
        data[place] ^= 0xFF
        broken.write_bytes(data)
        try:
            read_gguf(broken)
        except UserError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("count", [2**31, 2**62])
def test_gguf_when_it_claims_lengths_beyond_its_end_is_refused_at_once(count: int, tmp_path: Path) -> None:
    import struct

    path = tmp_path / "m.gguf"
    name = b"\1\0\0\0\0\0\0\0a"
    heads = [
        struct.pack("<QQ", count, 0),  # tensors
        struct.pack("<QQ", 0, count),  # fields
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", count),  # a name
        struct.pack("<QQ", 0, 1) + name + struct.pack("<IIQ", 9, 0, count),  # an array of bytes
        struct.pack("<QQ", 0, 1) + name + struct.pack("<IIQ", 9, 8, count),  # an array of strings
        struct.pack("<QQ", 0, 1) + name + struct.pack("<IIQ", 9, 9, count),  # an array of arrays
        struct.pack("<QQ", 1, 0) + name + struct.pack("<IQQIQ", 2, count, count, 0, 0),  # a tensor
    ]
    for head in heads:
        path.write_bytes(b"GGUF" + struct.pack("<I", 3) + head + bytes(64))
        with pytest.raises(UserError, match="not a readable GGUF file"):
            read_gguf(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gguf_when_run_by_llama_cpp_gives_the_same_logits_and_token_ids(kind: str, tmp_path: Path) -> None:
    if not llamacpp.installed():
        pytest.skip("llama-cpp-python is not installed (extra llamacpp)")
    model = load_model(saved(kind, tmp_path / "theirs")[1])
    spm = kind == "tinyllama"
    tok = sentence_piece_tokenizer(tmp_path / "tok") if spm else byte_level_tokenizer(tmp_path / "tok")
    file = export_gguf(model, tmp_path / "m.gguf", tok, "f32")
    ids = prompt_of(model)[0]
    theirs, encoded = llamacpp.llamacpp_logits(file, ids.tolist(), PROBES)
    ours = logits_of(model, ids[None])[0, :, : theirs.shape[1]]
    assert (ours - torch.from_numpy(theirs)).abs().max() < (2e-2 if kind == "gpt2" else 1e-3)
    tokenizer = HfTokenizer.from_file(str(tok / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    assert encoded == [tokenizer.encode(text, add_special_tokens=False).ids for text in PROBES]


def test_padded_vocabulary_when_saved_with_a_model_is_cut_in_the_gguf(tmp_path: Path) -> None:
    model = load_model(saved("qwen3", tmp_path / "theirs")[1])
    folder = save_model(model, tmp_path / "ours", byte_level_tokenizer(tmp_path / "tok"))
    file = read_gguf(export_gguf(model, tmp_path / "m.gguf", folder, "f32", name="mine", license="Apache-2.0"))
    assert file.tensors["token_embd.weight"].shape == (300, 48)
    assert len(file.fields["tokenizer.ggml.tokens"]) == file.fields["qwen3.vocab_size"] == 300
    assert (file.fields["general.name"], file.fields["general.license"]) == ("mine", "Apache-2.0")
    assert file.fields["tokenizer.ggml.pre"] == "qwen2"
    assert (file.fields["tokenizer.ggml.eos_token_id"], file.fields["tokenizer.ggml.eot_token_id"]) == (0, 2)


@pytest.mark.parametrize("kind", ["tinyllama", "llama3"])
def test_metadata_when_any_value_is_odd_is_read_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    model = load_model(saved(kind, tmp_path / "theirs")[1])
    spm = kind == "tinyllama"
    tok = sentence_piece_tokenizer(tmp_path / "tok") if spm else byte_level_tokenizer(tmp_path / "tok")
    file = read_gguf(export_gguf(model, tmp_path / "m.gguf", tok, "f32"))
    refused = 0
    for key in list(file.fields):
        for value in [-1, 2**62, 10**30, float("nan"), None, "x", [None]]:
            changed = Gguf(file.path, file.fields | {key: value}, file.tensors)
            try:
                model_from_gguf(changed)
                vocab_from_gguf(changed.fields, tmp_path, 64, "m.gguf")
            except UserError:
                refused += 1
    assert refused > 40

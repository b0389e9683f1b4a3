"""Scores and vectors of given texts, against the plain forward pass."""

from typing import Any

import pytest
import torch

from gptwright.core.errors import UserError


@pytest.fixture(scope="module")
def engine() -> Any:
    from gptwright.infer.engine import Engine
    from gptwright.model.config import ModelConfig
    from gptwright.model.transformer import Transformer

    config = ModelConfig(
        family="modern", vocab_size=320, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=64, seq_len=128
    )
    model = Transformer(config)
    model.init_weights(0)

    class Tokenizer:
        vocab_size, eos_id = 300, 0

        def remember_words(self, most: int) -> None:
            """It has none."""

    with Engine(model, Tokenizer()) as engine:  # type: ignore[arg-type]
        yield engine


def test_score_when_a_text_is_longer_than_a_block_then_it_equals_the_plain_forward_pass(engine: Any) -> None:
    ids = [int(i) for i in torch.randint(1, 300, (100,), generator=torch.Generator().manual_seed(1))]
    found = engine.score(ids, top=3)
    with torch.inference_mode():
        logits = engine.model.logits(engine.model(torch.tensor([ids])))[0, :, :300].double()
    expected = torch.log_softmax(logits, -1)
    assert [entry.token_id for entry in found] == ids
    assert found[0].logprob is None
    assert [entry.logprob for entry in found[1:]] == pytest.approx(
        [expected[i, ids[i + 1]].item() for i in range(99)], abs=1e-6
    )
    for i, entry in enumerate(found[1:]):
        assert [token for token, _ in entry.top] == expected[i].topk(3).indices.tolist()


def test_score_when_asked_again_or_for_one_token_then_bits_agree_and_one_has_no_logprob(engine: Any) -> None:
    assert engine.score([5, 6, 7, 8], 1) == engine.score([5, 6, 7, 8], 1)
    assert [entry.logprob for entry in engine.score([5])] == [None]
    with pytest.raises(UserError, match="not in the vocabulary"):
        engine.score([5, 1000])
    with pytest.raises(UserError, match="the model's context holds"):
        engine.score([5] * 200)


def test_embed_when_asked_then_it_is_the_mean_hidden_state_of_length_one(engine: Any) -> None:
    ids = [3, 1, 4, 1, 5]
    with torch.inference_mode():
        mean = engine.model(torch.tensor([ids]))[0].mean(0)
    found = torch.tensor(engine.embed(ids))
    assert found.norm().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(found, mean / mean.norm(), atol=1e-5)

"""Muon orthogonalises each part by itself; AdamW is torch's; what is whose follows from the names."""

import pytest
import torch
from tiny_training import tiny_config

from gptwright.model.transformer import Transformer
from gptwright.train.config import TrainConfig
from gptwright.train.optim import Optimizer, orthogonalise, parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (48, 160)])
def test_orthogonalise_when_spectrum_spans_a_hundredfold_then_all_singular_values_end_near_one(
    dtype: torch.dtype, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(columns, rows, generator=generator))
    x = u @ torch.diag(torch.logspace(-2, 0, rows)) @ v.T
    result = orthogonalise(x[None] * 7, dtype)[0].float()
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.25
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ v.T).flatten(), dim=0) > 0.97


def test_orthogonalise_when_zero_then_stays_zero() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 8, 8), torch.float32), torch.zeros(1, 8, 8))


def test_parts_when_fused_then_split_by_meaning() -> None:
    config = tiny_config()
    assert parts("blocks.1.attention.qkv.weight", torch.Size([64, 32]), config) == [(0, 32), (32, 48), (48, 64)]
    assert parts("blocks.0.feed_forward.up.weight", torch.Size([128, 32]), config) == [(0, 64), (64, 128)]
    assert parts("blocks.0.attention.out.weight", torch.Size([32, 32]), config) == [(0, 32)]
    assert parts("blocks.0.feed_forward.up.weight", torch.Size([64, 32]), tiny_config(family="gpt2", n_kv_heads=2)) == [
        (0, 64)
    ]
    for name in (
        "embedding.weight",
        "head.weight",
        "norm.weight",
        "blocks.0.attention.qkv.bias",
        "blocks.0.attention.qkv.lora_a",
    ):
        assert parts(name, torch.Size([4, 4]), config) is None


def test_step_when_muon_then_each_part_of_a_fused_matrix_moves_by_an_orthogonal_matrix() -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)
    masters = {n: p.data for n, p in model.named_parameters()}
    config = TrainConfig(max_steps=1, weight_decay=0.0)
    optimizer = Optimizer(masters, model.config, config, torch.float32)
    for gradient in optimizer.grads.values():
        gradient.copy_(torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1)))
    name = "blocks.0.attention.qkv.weight"
    optimizer.grads[name][:32] *= 1000  # queries must not drown keys and values
    before = masters[name].clone()
    optimizer.step(0, 1.0, 1.0)
    for start, end in ((0, 32), (32, 48), (48, 64)):
        update = (before - masters[name])[start:end] / config.lr_matrix
        values = torch.linalg.svdvals(update)
        assert values.min() > 0.5
        assert values.max() < 1.3


@pytest.mark.parametrize("clip", [1.0, 0.25])
def test_step_when_adamw_then_equals_torch(clip: float) -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)
    reference = Transformer(tiny_config())
    reference.load_state_dict(model.state_dict())
    config = TrainConfig(max_steps=9, optimizer="adamw", lr_embedding=0.003, lr_other=0.003, weight_decay=0.0)
    optimizer = Optimizer({n: p.data for n, p in model.named_parameters()}, model.config, config, torch.float32)
    peer = torch.optim.AdamW(
        reference.parameters(), lr=0.0015, betas=(config.beta1, config.beta2), eps=1e-10, weight_decay=0.0
    )
    for step in range(4):
        for (name, gradient), p in zip(optimizer.grads.items(), reference.parameters(), strict=True):
            gradient.copy_(torch.randn(gradient.shape, generator=torch.Generator().manual_seed(step)))
            p.grad = gradient * clip
            assert name
        optimizer.step(step, 0.5, clip)
        peer.step()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_grad_norm_when_known_then_is_the_global_one() -> None:
    masters = {"a": torch.zeros(3), "b": torch.zeros(2, 2)}
    optimizer = Optimizer(masters, tiny_config(), TrainConfig(max_steps=1), torch.float32)
    optimizer.grads["a"].fill_(2.0)
    optimizer.grads["b"].fill_(1.0)
    assert float(optimizer.grad_norm()) == pytest.approx(4.0)

"""An int8 base: near the whole one, a quarter of its memory, and only adapters move."""

from pathlib import Path

import pytest
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import UserError
from gptwright.model.lora import apply_lora, load_adapter, merge_lora, save_adapter
from gptwright.model.transformer import Transformer
from gptwright.train.config import TrainConfig
from gptwright.train.int8 import quantize, quantize_base
from gptwright.train.loop import train
from gptwright.train.metrics import read_metrics


def adapted(targets: tuple[str, ...] = ("all",)) -> Transformer:
    model = Transformer(tiny_config(d_model=64, n_heads=4, d_ff=160))
    model.init_weights(0)
    apply_lora(model, rank=4, alpha=8.0, targets=targets)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_b" in name:
                p.normal_(0, 0.02, generator=generator)
    return model


def test_quantize_when_rows_differ_in_size_then_each_is_within_half_a_step() -> None:
    weight = torch.randn(7, 50) * torch.logspace(-4, 3, 7)[:, None]
    weight[3] = 0
    values, scale = quantize(weight)
    assert values.dtype == torch.int8
    assert ((values.float() * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()


@pytest.mark.parametrize("targets", [("all",), ("attention",)])
def test_forward_and_gradients_when_the_base_is_int8_then_equal_those_of_the_rounded_weights(targets) -> None:
    model, rounded = adapted(targets), adapted(targets)
    with torch.no_grad():
        for module in rounded.blocks.modules():
            if isinstance(module, torch.nn.Linear):
                values, scale = quantize(module.weight)
                module.weight.copy_(values.float() * scale[:, None])
    matrices = sum(m.weight.numel() for m in model.blocks.modules() if isinstance(m, torch.nn.Linear))
    saved = quantize_base(model)
    assert 2.8 * matrices < saved < 3 * matrices
    ids = TinyPlan().batch(0).tokens
    a, b = model(ids), rounded(ids)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    theirs = dict(rounded.named_parameters())
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert float((p.grad - theirs[name].grad).norm() / theirs[name].grad.norm()) < 1e-4, name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_when_the_base_is_int8_then_learns_nearly_as_well_and_the_base_stays(
    dtype: str, tmp_path: Path
) -> None:
    losses = []
    for whole in (True, False):
        model = adapted()
        if not whole:
            quantize_base(model)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
        config = TrainConfig(objective="sft", max_steps=40, dtype=dtype, threads=1)
        train(model, TinyPlan(), config, run_dir=tmp_path / str(whole))
        losses.append([row["loss"] for row in read_metrics(tmp_path / str(whole) / "metrics.jsonl")])
        for name, p in model.named_parameters():
            if name in before:
                assert torch.equal(p, before[name]), name
                assert whole or not name.endswith(("qkv.weight", "up.weight")) or p.dtype == torch.int8
    assert losses[1][-1] < losses[1][0] - 0.3
    assert losses[1][-1] == pytest.approx(losses[0][-1], abs=0.05)


def test_adapter_when_trained_over_int8_then_merges_into_the_whole_base(tmp_path: Path) -> None:
    model = adapted()
    quantize_base(model)
    save_adapter(model, tmp_path / "adapter", "base")
    base = Transformer(tiny_config(d_model=64, n_heads=4, d_ff=160))
    base.init_weights(0)
    load_adapter(base, tmp_path / "adapter")
    merge_lora(base)
    ids = TinyPlan().batch(0).tokens
    expected = merge_lora(adapted())
    torch.testing.assert_close(base(ids), expected(ids), rtol=1e-5, atol=1e-5)


def test_int8_when_there_are_no_adapters_then_says_so() -> None:
    with pytest.raises(UserError, match="needs adapters"):
        quantize_base(Transformer(tiny_config()))

"""Adapters change nothing at first, train alone, open in PEFT with the same logits, and merge exactly."""

import json
from pathlib import Path

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.io import load_model, save_model
from gptwright.model.lora import apply_lora, is_adapter, load_adapter, merge_lora, read_base, save_adapter, target_names
from gptwright.model.transformer import Transformer

SHAPES = {
    "modern": ModelConfig(
        family="modern", vocab_size=96, n_layers=2, d_model=48, n_heads=4, n_kv_heads=2, d_head=16, d_ff=80, seq_len=32
    ),
    "llama": ModelConfig(
        family="llama", vocab_size=96, n_layers=2, d_model=48, n_heads=4, n_kv_heads=2, d_head=16, d_ff=80, seq_len=32
    ),
    "gpt2": ModelConfig(
        family="gpt2", vocab_size=96, n_layers=2, d_model=48, n_heads=3, n_kv_heads=3, d_head=16, d_ff=192, seq_len=32
    ),
}
TARGETS = {
    "modern": [("all",), ("q_proj", "v_proj"), ("feed_forward",)],
    "llama": [("k_proj", "up_proj", "o_proj")],
    "gpt2": [("all",), ("attn.c_proj",)],
}
CASES = [(family, targets) for family, choices in TARGETS.items() for targets in choices]


def model_of(family: str) -> Transformer:
    model = Transformer(SHAPES[family])
    model.init_weights(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    return model.eval()


def ids_of(batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 96, (batch, 20), generator=torch.Generator().manual_seed(0))


def logits_of(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ids_of()))


def trained(model: Transformer) -> Transformer:
    """A few real steps, so that A and B are both off their start."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(
            model.logits(model(ids_of()))[:, :-1].flatten(0, 1), ids_of()[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("family", list(SHAPES))
def test_adapters_when_fresh_change_nothing_and_train_alone(family: str) -> None:
    model = model_of(family)
    before, weights = logits_of(model), {n: p.clone() for n, p in model.named_parameters()}
    parameters = apply_lora(model, rank=4, alpha=8)
    assert torch.equal(logits_of(model), before)
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters() if p.requires_grad}
    after = logits_of(trained(model))
    assert (after - before).abs().max() > 1e-3
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_adapter_when_opened_in_peft_gives_the_same_logits(
    family: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base = save_model(model_of(family), tmp_path / "base")
    model = model_of(family)
    apply_lora(model, rank=4, alpha=6, targets=targets)
    plain, ours = logits_of(model), logits_of(trained(model))
    save_adapter(model, tmp_path / "adapter", base=base)
    peer = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    with torch.no_grad():
        theirs = peer(ids_of()).logits
    assert (plain - ours).abs().max() > 1e-2
    assert (theirs - ours).abs().max() < 1e-4
    again = load_model(read_base(tmp_path / "adapter"))
    load_adapter(again, tmp_path / "adapter")
    assert torch.equal(logits_of(again), ours)


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_adapter_when_merged_gives_the_same_logits_and_saves(
    family: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    model = model_of(family)
    apply_lora(model, rank=4, alpha=8, targets=targets)
    ours = logits_of(trained(model))
    names = set(model_of(family).state_dict())
    with pytest.raises(ValueError, match="merge LoRA first"):
        save_model(model, tmp_path / "unmerged")
    merge_lora(model)
    assert set(model.state_dict()) == names
    assert all(p.requires_grad for p in model.parameters())
    assert (logits_of(model) - ours).abs().max() < 1e-4
    assert torch.equal(logits_of(load_model(save_model(model, tmp_path / "m"))), logits_of(model))


def test_adapter_made_by_peft_when_loaded_gives_the_same_logits(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base = save_model(model_of("modern"), tmp_path / "base")
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["q_proj", "gate_proj", "down_proj"],
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    peer = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    peer.save_pretrained(tmp_path / "adapter")
    model = load_model(base)
    load_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        assert (peer(ids_of()).logits - logits_of(model)).abs().max() < 1e-4


def test_adapter_when_it_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    model = model_of("modern")
    with pytest.raises(UserError, match="no module c_attn"):
        apply_lora(model, targets=("c_attn",))
    apply_lora(model, rank=2)
    with pytest.raises(ValueError, match="already"):
        apply_lora(model)
    folder = save_adapter(model, tmp_path / "a", base="nowhere")
    assert is_adapter(folder)
    with pytest.raises(UserError, match="nowhere is not on this machine"):
        read_base(folder)
    with pytest.raises(UserError, match="adapts no module"):
        load_adapter(model_of("gpt2"), folder)
    small = SHAPES["modern"].model_copy(update={"n_layers": 1})
    with pytest.raises(UserError, match=r"layers\.1\..* has no place"):
        load_adapter(Transformer(small), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(UserError, match="use_dora"):
        load_adapter(model_of("modern"), folder)


def test_targets_when_listed_are_those_of_the_family() -> None:
    assert target_names("llama") == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert target_names("gpt2") == ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

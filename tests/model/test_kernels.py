"""Training's kernels give what the plain form gives: values and gradients, fp32 tightly, bf16 within its rounding."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gptwright.model import native as module
from gptwright.model.config import ModelConfig
from gptwright.model.kernels import Kernels, linear_cross_entropy
from gptwright.model.lora import apply_lora
from gptwright.model.native import native
from gptwright.model.transformer import Transformer

needs_compiler = pytest.mark.skipif(native() is None, reason="no C++ compiler here: apt install g++")


def shape(**changes: object) -> ModelConfig:
    values = {
        "vocab_size": 96,
        "n_layers": 2,
        "d_model": 48,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_head": 16,
        "d_ff": 80,
        "seq_len": 300,
    }
    return ModelConfig(**(values | changes))


def loss_and_gradients(
    model: Transformer, ids: torch.Tensor, targets: torch.Tensor
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    hidden = model(ids).reshape(targets.numel(), -1)
    loss = linear_cross_entropy(
        hidden, model.head_weight, targets.reshape(-1), 1 / int((targets >= 0).sum()), model.kernels
    )
    loss.backward()
    return float(loss.detach()), {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


@needs_compiler
@pytest.mark.parametrize("length", [7, 256, 300])
@pytest.mark.parametrize(
    "config",
    [
        shape(),
        shape(n_kv_heads=4, tie_embeddings=False),
        shape(family="llama"),
        shape(family="gpt2", n_heads=3, n_kv_heads=3),
    ],
    ids=["modern-grouped", "modern-untied", "llama", "gpt2"],
)
def test_gradients_with_kernels_when_fp32_then_equal_the_plain_form(config: ModelConfig, length: int) -> None:
    torch.manual_seed(1)
    model = Transformer(config)
    model.init_weights(3)
    with torch.no_grad():
        for p in model.parameters():  # norms away from 1, scores away from 0
            p.add_(torch.randn_like(p) * 0.1)
    ids = torch.randint(0, config.vocab_size, (3, length))
    targets = torch.randint(0, config.vocab_size, (3, length))
    targets[0, :3] = -100
    plain_loss, plain = loss_and_gradients(model.double(), ids, targets)
    model.float()
    model.kernels = Kernels(native(), torch.float32)
    loss, found = loss_and_gradients(model, ids, targets)
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < 2e-5, f"{name}: {error:.2e}"


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Threads of toy products wait for each other a hundred times longer than they work, when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@needs_compiler
@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("targets", [("q_proj",), ("k_proj", "up_proj"), ("all",)])
def test_gradients_with_kernels_when_adapters_sit_on_parts_then_equal_the_plain_form(targets: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    model = Transformer(shape())
    model.init_weights(3)
    apply_lora(model, rank=4, alpha=8.0, targets=targets)
    with torch.no_grad():
        for p in model.parameters():  # adapters away from 0
            p.add_(torch.randn_like(p) * 0.1)
    ids, goals = torch.randint(0, 96, (2, 3, 40))
    plain_loss, plain = loss_and_gradients(model.double(), ids, goals)
    model.float()
    model.kernels = Kernels(native(), torch.float32)
    loss, found = loss_and_gradients(model, ids, goals)
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    assert found.keys() == plain.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, gradient in plain.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < 2e-5, f"{name}: {error:.2e}"


@needs_compiler
def test_gradients_with_kernels_when_bf16_then_as_near_to_fp64_as_the_plain_form() -> None:
    torch.manual_seed(1)
    config = shape()
    model = Transformer(config)
    model.init_weights(3)
    model.bfloat16()
    ids, targets = torch.randint(0, 96, (2, 2, 300))
    _, plain = loss_and_gradients(model, ids, targets)
    model.kernels = Kernels(native(), torch.bfloat16)
    loss, found = loss_and_gradients(model, ids, targets)
    model.kernels = None
    true_loss, true = loss_and_gradients(model.double(), ids, targets)
    assert loss == pytest.approx(true_loss, rel=1e-3)

    def error(grads: dict[str, torch.Tensor]) -> float:
        return max(float((grads[name] - g).norm() / g.norm()) for name, g in true.items())

    assert error(found) < max(0.02, 1.2 * error(plain))


@needs_compiler
def test_loss_with_kernels_when_a_weight_is_nan_then_is_nan() -> None:
    model = Transformer(shape())
    model.init_weights(0)
    with torch.no_grad():
        model.blocks[0].feed_forward.up.weight[3, 3] = float("nan")
    model.kernels = Kernels(native(), torch.float32)
    loss, _ = loss_and_gradients(model, torch.arange(20)[None], torch.arange(20)[None])
    assert loss != loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_linear_cross_entropy_when_rows_are_masked_then_equals_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(50, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(30, 8, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, 30, (50,))
    targets[::3] = -100
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.25 * 3, [hidden, weight])
    loss = linear_cross_entropy(hidden, weight, targets, 0.25, chunk=16)
    found = torch.autograd.grad(loss * 3, [hidden, weight])
    torch.testing.assert_close(loss, expected.detach() * 0.25, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_native_when_switched_off_then_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPTWRIGHT_NATIVE", "0")
    assert module.load.__wrapped__() == (None, "GPTWRIGHT_NATIVE=0 is set")
    assert "kernels are off" in capsys.readouterr().err


def test_native_when_there_is_no_compiler_then_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert module.load.__wrapped__()[0] is None
    assert "no C++ compiler (g++)" in capsys.readouterr().err


@pytest.mark.slow
@needs_compiler
def test_native_when_the_cached_library_is_damaged_then_is_built_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTWRIGHT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    library = tmp_path / "cache" / f"kernels-{native().key}.so"
    library.write_bytes(b"half a libr")
    library.chmod(0o700)
    found = module.load.__wrapped__()[0]
    assert found is not None
    assert found.key == native().key
    assert [path.name for path in library.parent.iterdir()] == [library.name]
    assert library.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX modes")
def test_cache_when_others_could_write_to_it_then_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTWRIGHT_CACHE", str(tmp_path / "new"))
    assert module.cache_dir() == tmp_path / "new"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    for mode, trusted in ((0o755, True), (0o775, False), (0o777, False)):
        (tmp_path / "new").chmod(mode)
        assert (module.cache_dir() is not None) == trusted
    (tmp_path / "new").chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "new").stat().st_uid + 1)
    assert module.cache_dir() is None


@needs_compiler
def test_native_when_the_cache_is_not_trusted_then_a_planted_library_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / f"kernels-{native().key}.so"
    planted.write_bytes(b"planted")
    tmp_path.chmod(0o777)
    built: list[Path] = []

    def build(*arguments: object) -> None:
        library = arguments[-1]
        assert isinstance(library, Path)
        built.append(library)
        raise OSError("stop here")

    monkeypatch.setenv("GPTWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_build", build)
    assert module.load.__wrapped__() == (None, "stop here")
    assert built[0].parent != tmp_path
    assert planted.read_bytes() == b"planted"
    assert not built[0].parent.exists()

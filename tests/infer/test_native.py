"""The compiled forward pass: PyTorch's numbers, the same bits however the work is cut, and a fallback where it cannot be."""

from collections.abc import Callable

import pytest
import torch

from gptwright.core.errors import GptwrightError
from gptwright.infer import native
from gptwright.infer.cache import PagedCache
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.native import NativeRunner
from gptwright.infer.pack import BF16, F32, INT4, INT8, pack, round_rows, unpack
from gptwright.infer.runner import Part, Runner
from gptwright.infer.weights import make_runner
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")
IDS = [(7 * i + 3) % 260 for i in range(90)]
Make = Callable[..., Transformer]


def logits(runner: Runner | NativeRunner, cuts: list[int], threads: int = 1) -> torch.Tensor:
    """All logits of IDS, taken in by pieces."""
    cache = PagedCache(runner.config, runner.dtype)
    lease = cache.open(IDS, len(IDS))
    assert lease is not None
    done, at = [], 0
    with torch.inference_mode():
        for size in cuts:
            done.append(runner.forward(cache, [Part(IDS[at : at + size], at, lease, size)], threads))
            at += size
    return torch.cat(done)


@pytest.mark.parametrize("kind", [F32, BF16, INT8, INT4])
def test_matrix_when_packed_comes_back_as_its_format_rounds_it(kind: int) -> None:
    w = torch.randn(100, 83, generator=torch.Generator().manual_seed(1))
    w[7] = 0
    back = unpack(pack(w, kind))
    worst = {F32: 0.0, BF16: 2**-8, INT8: 0.5 / 127, INT4: 0.16}[kind]
    assert back.shape == w.shape
    assert ((back - w).abs() <= worst * w.abs().amax(1, keepdim=True)).all()
    assert not back[7].any()


@needs_compiler
@pytest.mark.parametrize("family", ["modern", "llama", "gpt2"])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8", "int4"])
def test_logits_when_compared_with_pytorch_differ_by_rounding_alone(make_model: Make, family: str, kind: str) -> None:
    model = make_model(family)
    compiled = logits(NativeRunner(model, 264, kind), [90])
    if kind in ("int8", "int4"):
        # The same rounding of weights and activations, done by PyTorch.
        number = {"int8": INT8, "int4": INT4}[kind]
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                gated = module.out_features == 2 * model.config.d_ff
                halves = module.weight.chunk(2) if gated else [module.weight]
                module.weight.data = torch.cat([unpack(pack(half, number)) for half in halves])
                module.register_forward_pre_hook(lambda _, x: (round_rows(x[0], number),))
        hidden = round_rows(model(torch.tensor([IDS])), INT8)
        expected = hidden @ unpack(pack(model.head_weight[:264], INT8)).T
    else:
        expected = model.logits(model(torch.tensor([IDS])))[..., :264]
    gap = (compiled - expected[0]).abs().max() / expected.abs().max()
    # bf16 rounds activations and stored keys and values too, and so do the integers' stores
    assert gap < (1e-5 if kind == "fp32" else 0.08)


@needs_compiler
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8", "int4"])
def test_bits_when_the_prompt_is_cut_differently_or_threads_change_stay_the_same(make_model: Make, kind: str) -> None:
    runner = NativeRunner(make_model("llama"), 264, kind)
    whole = logits(runner, [90])
    assert torch.equal(whole, logits(runner, [1] * 90))
    assert torch.equal(whole, logits(runner, [63, 2, 25], threads=2))
    assert torch.equal(whole, logits(runner, [90], threads=3))


@needs_compiler
def test_bits_when_other_sequences_stand_in_the_batch_stay_the_same(make_model: Make) -> None:
    runner = NativeRunner(make_model("modern"), 264, "int8")
    alone = logits(runner, [80, 10])[80:]
    cache = PagedCache(runner.config, runner.dtype)
    leases = [cache.open(IDS, 90, root=i) for i in range(9)]
    parts = []
    for i, lease in enumerate(leases):
        assert lease is not None
        runner.forward(cache, [Part(IDS[:80], 0, lease)], 1)
        parts.append(Part(IDS[80:], 80, lease, 10) if i == 4 else Part([i], 80, lease, 1))
    assert torch.equal(runner.forward(cache, parts, 2)[4:14], alone)


@needs_compiler
def test_weights_when_damaged_show_as_no_numbers(make_model: Make, tokenizer: Tokenizer) -> None:
    for weights in ("as_is", "int8"):
        model = make_model()
        with torch.no_grad():
            model.norm.weight[3] = torch.nan  # type: ignore[index, operator]
        with Engine(model, tokenizer, weights=weights) as engine, pytest.raises(GptwrightError, match="not numbers"):
            engine.generate([[1, 2, 3]], GenerationConfig(max_tokens=3, temperature=0))


def test_runner_when_there_is_no_compiler_or_the_shape_is_odd_is_pytorchs(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    assert isinstance(make_runner(model, 264), NativeRunner) == (native.library() is not None)
    monkeypatch.setattr(native, "fits", lambda _: False)
    assert isinstance(make_runner(model, 264), Runner)
    monkeypatch.undo()
    monkeypatch.setattr(native, "library", lambda: None)
    assert isinstance(make_runner(model, 264, "int8"), Runner)


@needs_compiler
def test_greedy_answers_when_compiled_and_when_not_are_the_same(
    make_model: Make, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GenerationConfig(max_tokens=40, temperature=0, ignore_eos=True)
    prompts = [[5, 9, 200], list(range(20, 60)), [100]]
    for family in ("modern", "llama", "gpt2"):
        answers = []
        for compiled in (True, False):
            with monkeypatch.context() as patch:
                if not compiled:
                    patch.setattr(native, "library", lambda: None)
                with Engine(make_model(family), tokenizer) as engine:
                    assert engine._scheduler.runner.exact == compiled
                    answers.append([result.ids for result in engine.generate(prompts, config)])
        assert answers[0] == answers[1]


@needs_compiler
@pytest.mark.slow
def test_plain_form_when_compiled_without_wide_instructions_gives_the_same_logits(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What processors without AVX512 run; compiled here by leaving the wide form out."""
    runners = {kind: NativeRunner(make_model("llama"), 264, kind) for kind in ("fp32", "bf16", "int8", "int4")}
    wide = {kind: logits(runner, [90]) for kind, runner in runners.items()}
    monkeypatch.setattr(native, "_FLAGS", f"{native._FLAGS} -DGW_PLAIN")
    plain = native.library.__wrapped__()
    assert plain is not None
    assert plain.instructions() == 0
    for kind, runner in runners.items():
        runner._library = plain
        gap = (logits(runner, [90]) - wide[kind]).abs().max() / wide[kind].abs().max()
        assert gap < (1e-5 if kind == "fp32" else 0.02)
        assert torch.equal(logits(runner, [90]), logits(runner, [1] * 90))

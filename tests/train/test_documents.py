"""Packed rows: a document's hidden states, loss and gradients are what they would be in a row of its own, on every path."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import tiny_config

from gptwright.model.native import native
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.data import Work
from gptwright.train.documents import DocumentKernels, DocumentMask, hidden_states, layout_of
from gptwright.train.stepper import Stepper

needs_compiler = pytest.mark.skipif(native() is None, reason="no C++ compiler here: apt install g++")


def rows_of_cuts(cuts: list[list[int]], t: int) -> np.ndarray:
    segments = np.zeros((len(cuts), t), dtype=np.int64)
    for row, places in enumerate(cuts):
        for place in places:
            segments[row, place % t :] += 1
    return segments


def stretches(segments: np.ndarray) -> list[tuple[int, int, int]]:
    found = []
    for row, line in enumerate(segments):
        edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), len(line)]
        found += [(row, a, b) for a, b in pairwise(edges)]
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 299), max_size=9), min_size=1, max_size=3), st.integers(2, 300))
def test_layout_when_taken_apart_then_every_position_stands_in_its_own_stretch_once(
    cuts: list[list[int]], t: int
) -> None:
    segments = rows_of_cuts(cuts, t)
    layout = layout_of(segments)
    wanted = stretches(segments)
    if layout is None:
        assert len(wanted) == len(segments)
        return
    flat = torch.cat([group.places.reshape(-1) for group in layout.groups])
    assert torch.equal(flat[layout.back], torch.arange(segments.size))
    found = []
    for group in layout.groups:
        real = group.real.view(group.places.shape)
        for places, there in zip(group.places, real, strict=True):
            mine = places[there].tolist()
            assert mine == list(range(mine[0], mine[-1] + 1))
            found.append((mine[0] // t, mine[0] % t, mine[-1] % t + 1))
    assert sorted(found) == wanted


def packed(t: int = 90) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 64, (3, t), generator=generator)
    return tokens, rows_of_cuts([[5, 6, 40], [], [70]], t)


@pytest.mark.parametrize("family", ["modern", "llama", "gpt2"])
@pytest.mark.parametrize("path", ["mask", "kernels"])
def test_hidden_states_when_rows_are_packed_then_are_those_of_each_document_alone(family: str, path: str) -> None:
    if path == "kernels" and native() is None:
        pytest.skip("no C++ compiler here: apt install g++")
    model = Transformer(tiny_config(family=family, n_kv_heads=2, seq_len=96))
    model.init_weights(0)
    tokens, segments = packed()
    if path == "kernels":
        model.kernels = DocumentKernels(native(), torch.float32)
    together = hidden_states(model, tokens, segments)
    model.kernels = None
    for row, start, end in stretches(segments):
        places = torch.arange(start, end)[None] if family == "gpt2" else None  # learnt positions stay the row's
        alone = model(tokens[row : row + 1, start:end], None, places)
        torch.testing.assert_close(together[row, start:end], alone[0], rtol=2e-5, atol=2e-5)


@needs_compiler
def test_gradients_when_taken_apart_then_equal_those_of_the_mask() -> None:
    tokens, segments = packed()
    ends = []
    for compiled in ("on", "off"):
        model = Transformer(tiny_config(seq_len=96))
        model.init_weights(0)
        config = TrainConfig(max_steps=1, dtype="float32", compile=compiled, document_mask="on", threads=2)
        stepper = Stepper(model, config, machine.choose(config))
        result = stepper.gradients(Work(tokens.numpy(), tokens.roll(-1, 1).numpy(), segments=segments))
        ends.append((result.loss, {name: g.clone() for name, g in stepper.optimizer.grads.items()}))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-6)
    for name in ends[0][1]:
        torch.testing.assert_close(ends[0][1][name], ends[1][1][name], rtol=1e-4, atol=2e-7)


def test_mask_when_a_number_comes_back_then_the_two_stretches_do_not_see_each_other() -> None:
    mask = DocumentMask(torch.tensor([[1, 1, 2, 1]])).mask[0, 0]
    assert mask.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


@pytest.mark.parametrize(("setting", "differs"), [("on", True), ("off", False), ("auto", False)])
def test_pretraining_when_the_mask_is_on_then_alone_changes_the_loss(setting: str, differs: bool) -> None:
    tokens, segments = packed()
    losses = []
    for given_segments in (segments, None):
        model = Transformer(tiny_config(seq_len=96))
        model.init_weights(0)
        config = TrainConfig(max_steps=1, dtype="float32", document_mask=setting)
        stepper = Stepper(model, config, machine.choose(config))
        losses.append(stepper.gradients(Work(tokens.numpy(), tokens.roll(-1, 1).numpy(), segments=given_segments)).loss)
    assert (losses[0] != losses[1]) == differs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_when_a_batch_is_split_then_equal_those_of_one_big_batch_to_1e_6(dtype: str) -> None:
    """Rows carry 1 to 15 targets: a mean of the parts' means would be off by tens of percent."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 64, (6, 16), generator=generator)
    targets = tokens.roll(-1, 1)
    for row in range(6):
        targets[row, 1 + 3 * row :] = -100
    found = []
    for micro, threads in ((96, 1), (16, 1), (32, 2)):
        model = Transformer(tiny_config())
        model.init_weights(0)
        config = TrainConfig(max_steps=1, dtype=dtype, micro_tokens=micro, threads=threads, compile="off")
        stepper = Stepper(model, config, machine.choose(config))
        loss = stepper.gradients(Work(tokens.numpy(), targets.numpy())).loss
        found.append((loss, {name: g.clone() for name, g in stepper.optimizer.grads.items()}))
    limit = 1e-6 if dtype == "float32" else 1e-12
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=limit)
        for name, whole in found[0][1].items():
            assert float((grads[name] - whole).norm() / whole.norm()) < limit, name

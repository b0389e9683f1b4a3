"""Side by side or one after the other: the same gradients, and the same bits every time."""

import pytest
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import UserError
from gptwright.model import cost
from gptwright.model.kernels import Kernels
from gptwright.model.native import native
from gptwright.model.transformer import Transformer
from gptwright.plan.memory import held_bytes
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.stepper import Stepper

needs_compiler = pytest.mark.skipif(native() is None, reason="no C++ compiler here: apt install g++")


def after_steps(threads: int, dtype: str, steps: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    model = Transformer(tiny_config())
    model.init_weights(0)
    config = TrainConfig(max_steps=steps, dtype=dtype, threads=threads, micro_tokens=16)
    stepper, plan, losses = Stepper(model, config, machine.choose(config)), TinyPlan(rows=7), []
    for step in range(steps):
        result = stepper.gradients(plan.batch(step))
        stepper.apply(step, 1.0, result.grad_norm)
        losses.append(result.loss)
    done = stepper.finished()
    return losses, {name: p.detach().clone() for name, p in done.named_parameters()}


def test_workers_when_two_then_gradients_are_those_of_one() -> None:
    one, two = after_steps(1, "float64"), after_steps(2, "float64")
    assert one[0] == pytest.approx(two[0], rel=1e-12)
    for name in one[1]:
        torch.testing.assert_close(one[1][name], two[1][name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_workers_when_run_again_then_give_the_same_bits(dtype: str) -> None:
    first = after_steps(3, dtype)
    for _ in range(3):
        again = after_steps(3, dtype)
        assert again[0] == first[0]
        assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])


def test_workers_when_a_batch_has_fewer_rows_than_threads_then_are_as_many_as_rows() -> None:
    config = TrainConfig(max_steps=1, threads=3, dtype="float32")
    model = Transformer(tiny_config())
    assert len(Stepper(model, config, machine.choose(config), rows=2).workers.workers) == 2
    assert len(Stepper(model, config, machine.choose(config), rows=7).workers.workers) == 3
    assert len(Stepper(model, config, machine.choose(config)).workers.workers) == 3


def test_memory_when_two_workers_train_then_the_estimate_counts_what_they_hold() -> None:
    config = TrainConfig(max_steps=1, threads=2, dtype="bfloat16", micro_tokens=32)
    model = Transformer(tiny_config())
    model.init_weights(0)
    stepper = Stepper(model, config, machine.choose(config))
    sums = sum(t.nbytes for worker in stepper.workers.workers for t in worker.sums.values())
    work = sum(p.nbytes for worker in stepper.workers.workers for p in worker.params.values())  # p.grad, while it lives
    state = sum(t.nbytes for t in stepper.optimizer.state().values())
    masters = sum(p.nbytes for p in stepper.masters.values())
    held = sums + work + state + masters + work // 2
    activations = 2 * cost.activation_bytes(model.config, 32)
    assert cost.train_memory_bytes(model.config, 32, workers=2) == held + activations


@needs_compiler
def test_activations_when_kernels_keep_probabilities_then_the_estimate_is_near_what_autograd_saves() -> None:
    shape = tiny_config(seq_len=300, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=96)
    model = Transformer(shape)
    model.init_weights(0)
    model.kernels = Kernels(native(), torch.float32)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model(torch.arange(600).reshape(2, 300) % 64)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = sum(size for address, size in kept.items() if address not in weights)
    assert hidden.requires_grad
    assert cost.activation_bytes(shape, 600, 4) == pytest.approx(saved, rel=0.1)


def test_workers_when_a_part_fails_then_the_error_reaches_the_caller() -> None:
    config = TrainConfig(max_steps=1, threads=2, dtype="float32")
    model = Transformer(tiny_config())
    model.init_weights(0)
    stepper = Stepper(model, config, machine.choose(config))
    batch = TinyPlan().batch(0)
    batch.tokens[3, 3] = 64  # outside the vocabulary
    with pytest.raises(IndexError):
        stepper.gradients(batch)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_loss_when_a_target_is_outside_the_vocabulary_then_is_refused_before_the_kernels(dtype: str) -> None:
    config = TrainConfig(max_steps=1, threads=2, dtype=dtype)
    model = Transformer(tiny_config())
    model.init_weights(0)
    stepper = Stepper(model, config, machine.choose(config))
    batch = TinyPlan().batch(0)
    batch.targets[3, -1] = 64
    with pytest.raises(UserError, match="from another tokenizer"):
        stepper.gradients(batch)
    with pytest.raises(UserError, match="from another tokenizer"):
        stepper.evaluate(batch)
    assert not any(gradient.any() for gradient in stepper.optimizer.grads.values())


def test_workers_when_they_run_then_the_threads_of_the_process_stay_as_they_were() -> None:
    before = torch.get_num_threads()
    model = Transformer(tiny_config())
    model.init_weights(0)
    config = TrainConfig(max_steps=1, threads=2)
    stepper = Stepper(model, config, machine.choose(config))
    stepper.gradients(TinyPlan().batch(0))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_kept_memory_when_it_ends_then_what_was_freed_in_it_goes_back_to_the_system() -> None:
    if held_bytes() is None or machine._glibc("malloc_trim") is None:
        pytest.skip("only glibc can be told")

    @machine.kept_memory()
    def use() -> int:
        big, after = torch.ones(75_000_000), torch.ones(1000)  # the second keeps the heap's end from falling by itself
        del big
        kept = held_bytes()
        assert kept is not None
        assert after[0] == 1
        return kept

    kept, left = use(), held_bytes()
    assert left is not None
    assert left < kept - 250_000_000
    assert use() - left > 250_000_000  # and so again

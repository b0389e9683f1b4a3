"""Side by side or one after the other: the same gradients, and the same bits every time."""

import pytest
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import UserError
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.stepper import Stepper


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

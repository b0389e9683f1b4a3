"""The parts that training in several processes is made of, without starting any."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import build
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import tiny_config

from gptwright.core import launch
from gptwright.core.errors import UserError
from gptwright.model.kernels import linear_cross_entropy
from gptwright.model.transformer import Transformer
from gptwright.train import accelerate, machine, parallel
from gptwright.train.config import TrainConfig
from gptwright.train.distributed import ONE, PeerLost, Processes, World, flatten, launched, owners
from gptwright.train.loop import train
from gptwright.train.metrics import read_metrics
from gptwright.train.shared import shard_rows
from gptwright.train.stepper import Stepper, frozen_copy

LAUNCH = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


class Several(World):
    """Somewhere among several processes, without the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def test_world_when_started_alone_then_is_one_and_leaves_everything_as_it_is() -> None:
    assert launched() is ONE
    assert (ONE.rank, ONE.size, ONE.is_main) == (0, 1, True)
    assert ONE.rows(7, 2) == range(7)
    assert ONE.sums(1.5, 2.0) == (1.5, 2.0)
    assert ONE.most(3, 0) == (3, 0)
    assert ONE.share(lambda: "x") == "x"
    assert not ONE.lost(RuntimeError("gloo"))


def test_launch_when_the_environment_says_so_then_this_is_a_process_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (launch.size(), launch.rank(), launch.is_main()) == (1, 0, True)
    for name, value in LAUNCH.items():
        monkeypatch.setenv(name, value)
    assert (launch.size(), launch.rank(), launch.local_rank(), launch.is_main()) == (4, 1, 1, False)
    monkeypatch.delenv("MASTER_PORT")  # Slurm sets some of these names for other purposes
    assert launch.size() == 1


@given(count=st.integers(1, 60), size=st.integers(1, 9), unit=st.integers(1, 3))
def test_rows_when_shared_out_then_every_row_is_taken_once_in_order_and_evenly(
    count: int, size: int, unit: int
) -> None:
    shares = [Several(rank, size).rows(count, unit) for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(count))
    assert all(share.start % unit == 0 or not share for share in shares)
    assert max(map(len, shares)) == Several(0, size).most_rows(count, unit) or count % unit
    assert max(map(len, shares)) <= Several(0, size).most_rows(count, unit)
    assert max(map(len, shares)) - min(map(len, shares)) <= 2 * unit


@given(rows=st.integers(1, 40), size=st.integers(1, 9))
def test_shard_rows_when_compared_with_torch_chunk_then_are_the_same(rows: int, size: int) -> None:
    chunks = [chunk.tolist() for chunk in torch.arange(rows).chunk(size)]
    found = [list(shard_rows(rows, rank, size)) for rank in range(size)]
    assert found == chunks + [[]] * (size - len(chunks))


@given(costs=st.lists(st.integers(1, 100), max_size=30), size=st.integers(1, 8))
def test_owners_when_work_is_shared_out_then_nobody_has_more_than_the_mean_and_one_piece(
    costs: list[int], size: int
) -> None:
    loads = [0] * size
    for cost, owner in zip(costs, owners(costs, size), strict=True):
        loads[owner] += cost
    assert max(loads) <= sum(costs) / size + max(costs, default=0)


def test_flatten_when_tensors_are_laid_end_to_end_then_they_are_views_of_the_buffer() -> None:
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(4), "none": torch.ones(0, 5)}
    flat = flatten(tensors)
    assert flat is not None
    flat += 1
    assert tensors["a"].equal(torch.full((2, 3), 2.0))
    assert tensors["b"].equal(torch.ones(4))
    assert tensors["none"].shape == (0, 5)
    assert flatten({}) is None


def test_peer_lost_when_gloo_says_why_then_its_place_in_the_source_and_its_advice_are_left_out() -> None:
    cause = RuntimeError(
        "[/pytorch/third_party/gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:10. This is typically"
    )
    assert "silent (Connection closed by peer [127.0.0.1]:10);" in str(PeerLost(cause))
    world = Processes.__new__(Processes)
    assert world.lost(cause)
    assert not world.lost(RuntimeError("out of memory"))
    assert not world.lost(UserError("the disk is full"))


@pytest.mark.parametrize(
    ("settings", "device", "memory_gb", "expected"),
    [
        ({}, "cpu", 0, "ddp"),
        ({"parallel": "fsdp"}, "cpu", 0, "fsdp"),
        ({}, "cuda", 80, "ddp"),
        ({}, "cuda", 0.0005, "fsdp"),
        ({"objective": "grpo"}, "cuda", 0.0005, "ddp"),
    ],
)
def test_layout_when_auto_then_is_shards_only_where_a_whole_model_would_not_fit(
    settings: dict[str, Any], device: str, memory_gb: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Card:
        total_memory = memory_gb * 1e9

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card)
    config = TrainConfig(max_steps=1, **settings)
    assert parallel.layout_of(config, tiny_config(), Several(0, 2), device, "bfloat16") == expected
    assert parallel.layout_of(config, tiny_config(), ONE, device, "bfloat16") == "none"


def test_layout_when_grpo_is_to_be_divided_then_is_refused() -> None:
    config = TrainConfig(max_steps=1, objective="grpo", parallel="fsdp")
    with pytest.raises(UserError, match="whole weights"):
        parallel.layout_of(config, tiny_config(), Several(0, 2), "cpu", "float32")


CARDS = {"A100": (8, 0), "L4": (8, 9), "H100": (9, 0), "V100": (7, 0)}


@pytest.mark.parametrize(
    ("card", "settings", "triton", "expected"),
    [
        ("A100", {}, True, ("bfloat16", "inductor")),
        ("A100", {"compile": "off"}, True, ("bfloat16", "eager")),
        ("A100", {}, False, ("bfloat16", "eager")),
        ("A100", {"compile": "on"}, False, "triton is not installed"),
        ("A100", {"fp8": True}, True, "A100 has 8.0"),
        ("H100", {"fp8": True}, True, ("bfloat16", "inductor")),
        ("L4", {"fp8": True, "dtype": "float32"}, True, ("float32", "inductor")),
        ("V100", {}, True, ("float32", "inductor")),
        (None, {"device": "cuda"}, True, "no cuda device here"),
        (None, {"device": "cpu", "fp8": True}, True, "fp8 needs a GPU"),
    ],
)
def test_machine_when_on_a_gpu_then_uses_what_the_card_can_and_refuses_what_it_cannot(
    card: str | None, settings: dict[str, Any], triton: bool, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: CARDS[str(card)])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: CARDS[str(card)] >= (8, 0))
    monkeypatch.setattr(accelerate.importlib.util, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setitem(sys.modules, "torchao", json)  # any module will do
    config = TrainConfig(max_steps=1, **settings)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            machine.choose(config)
        return
    chosen = machine.choose(config)
    assert (chosen.device, chosen.dtype, chosen.kernels) == ("cuda", *expected)
    assert chosen.compiled == (chosen.kernels == "inductor")


def test_fp8_when_torchao_is_missing_then_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError, match=r"gptwright\[fp8\]"):
        accelerate.check_fp8("cuda")


def test_fp8_when_emulated_then_names_stay_and_every_matrix_of_a_block_still_learns() -> None:
    pytest.importorskip("torchao", reason="pip install torchao")
    model = Transformer(tiny_config())
    model.init_weights(0)
    names = [name for name, _ in model.named_parameters()]
    plain = loss_of(model)
    assert accelerate.use_fp8(model, emulate=True) == 8
    loss = loss_of(model)
    loss.backward()
    assert [name for name, _ in model.named_parameters()] == names
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), abs=0.02)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def loss_of(model: Transformer) -> torch.Tensor:
    batch = build("pretrain").plan.batch(0)
    hidden = model(batch.tokens)
    return linear_cross_entropy(hidden.reshape(-1, 32), model.head_weight, batch.targets.reshape(-1), 1 / 64)


@pytest.mark.parametrize("case", ["pretrain", "packed", "sft-lora"])
@pytest.mark.parametrize("compiled", ["off", "auto"])
def test_losses_when_activations_are_computed_again_then_are_the_same_bits(
    case: str, compiled: str, tmp_path: Path
) -> None:
    curves = []
    for again in (False, True):
        made = build(case, max_steps=4, dtype="float32", compile=compiled, activation_checkpointing=again)
        folder = tmp_path / str(again)
        result = train(made.model, made.plan, made.config, run_dir=folder, objective=made.objective)
        curves.append([row["loss"] for row in read_metrics(folder / "metrics.jsonl")])
        assert result.model.recompute is False
    assert curves[0] == curves[1]


def test_activations_when_computed_again_then_fewer_bytes_are_kept_for_the_backward_pass() -> None:
    kept = {}
    for again in (False, True):
        model = Transformer(tiny_config(n_layers=4))
        model.init_weights(0)
        model.recompute = again
        own = {p.data_ptr() for p in model.parameters()}
        sizes = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes, own: set[int] = own) -> torch.Tensor:
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss_of(model)
        kept[again] = sum(sizes.values())
    assert kept[True] < 0.3 * kept[False]


@pytest.mark.slow
def test_blocks_when_compiled_then_the_loss_stays_and_a_frozen_copy_keeps_its_own_weights() -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)
    before = loss_of(model)
    accelerate.compile_blocks(model, backend="aot_eager")
    torch.testing.assert_close(loss_of(model), before)
    frozen = frozen_copy(model)
    with torch.no_grad():
        model.blocks[0].attention.out.weight.mul_(3.0)
    assert not torch.allclose(loss_of(model), before)
    torch.testing.assert_close(loss_of(frozen), before.detach())


META = """
import sys, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from gptwright.model.presets import named
from gptwright.model.transformer import Transformer
from gptwright.train.sharded import local, shard
dist.init_process_group("fake", store=FakeStore(), rank=63, world_size=64)
with torch.device("meta"):
    model = Transformer(named("gpt3-13b"))
whole = {name: p.shape for name, p in model.named_parameters()}
shard(model, init_device_mesh("cpu", (64,)), torch.bfloat16, torch.float32)
held = {name: local(p.data) for name, p in model.named_parameters()}
assert all(t.is_meta for t in held.values())
assert {name: p.shape for name, p in model.named_parameters()} == whole
total, mine = sum(s.numel() for s in whole.values()), sum(t.numel() for t in held.values())
groups = sum(type(m).__name__.startswith("FSDP") for m in model.modules())
print(total, mine, groups, len(model.blocks))
"""


@pytest.mark.slow
def test_shards_when_a_large_model_is_planned_on_the_meta_device_then_each_of_64_holds_its_share() -> None:
    env = {name: value for name, value in os.environ.items() if name not in LAUNCH}
    done = subprocess.run([sys.executable, "-c", META], capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    total, mine, groups, blocks = map(int, done.stdout.split())
    assert total > 12.8e9
    assert mine == pytest.approx(total / 64, rel=0.01)
    assert groups == blocks + 1


def test_stepper_when_weights_begin_on_the_meta_device_then_values_are_those_of_a_plain_start() -> None:
    plain = Transformer(tiny_config())
    plain.init_weights(3)
    with torch.device("meta"):
        empty = Transformer(tiny_config())
    drawn = dict(empty.initial_values(3))
    assert all(torch.equal(drawn[name], p.data) for name, p in plain.named_parameters())


def test_machine_when_resumed_by_another_number_of_processes_then_threads_are_not_carried_over(tmp_path: Path) -> None:
    from gptwright.train.run import Resolved
    from gptwright.train.schedule import Schedule

    config = TrainConfig(max_steps=1, dtype="float32", compile="off")
    then = replace(machine.choose(config), threads=64, processes=1)
    resolved = Resolved(then, Schedule.of(1, 0, 0, 0), 1.0, 0.0)
    chosen = parallel.choose_machine(config, resolved, tiny_config(), Several(0, 2))
    assert chosen.threads == torch.get_num_threads() != 64
    assert (chosen.processes, chosen.parallel) == (2, "ddp")


def test_machine_when_resumed_with_a_device_by_name_then_is_that_one() -> None:
    from gptwright.train.run import Resolved
    from gptwright.train.schedule import Schedule

    config = TrainConfig(max_steps=1, dtype="float32", compile="off", device="cpu")
    then = replace(machine.choose(config), device="cuda")
    resolved = Resolved(then, Schedule.of(1, 0, 0, 0), 1.0, 0.0)
    chosen = parallel.choose_machine(config, resolved, tiny_config(), Several(0, 2))
    assert (chosen.device, chosen.dtype) == ("cpu", "float32")


def test_stepper_when_there_is_one_process_then_gradients_are_not_laid_into_one_buffer() -> None:
    made = build("pretrain")
    stepper = Stepper(made.model, made.config, machine.choose(made.config), rows=4)
    assert not hasattr(stepper, "flat")
    assert type(stepper.optimizer).__name__ == "Optimizer"
    stepper.finished()

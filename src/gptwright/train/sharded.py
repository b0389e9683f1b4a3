"""Training with weights, gradients and moments divided over the processes: FSDP2 (``fully_shard``), a block at a time.

Masters are rows of fp32 parameters. A block's parameters are gathered in the working dtype just before it computes and dropped after; its
gradients are summed in the masters' dtype, and each process keeps those of its rows. With several parts in a step only the last one sums.
Source: PyTorch FSDP2 (pytorch.org/docs/stable/distributed.fsdp.fully_shard.html); FSDP (arXiv 2304.11277).
"""

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

from gptwright.model.transformer import Transformer
from gptwright.train.config import TrainConfig
from gptwright.train.distributed import World
from gptwright.train.machine import Machine
from gptwright.train.objectives import Objective
from gptwright.train.optim import Optimizer
from gptwright.train.shared import SharedOptimizer, shard_rows
from gptwright.train.stepper import Stepper
from gptwright.train.workers import PartLoss, Worker, Workers

Values = Iterable[tuple[str, Tensor]]


def shard(
    model: Transformer, mesh: DeviceMesh, work_dtype: torch.dtype, wide: torch.dtype, device: str | None = None
) -> None:
    """Divide a model's parameters over a mesh, in place: a group for each block, and one for what is outside of them.

    Args:
        model: on the mesh's device with masters in ``wide``, or on the meta device.
        mesh: one-dimensional.
        work_dtype: of the arithmetic.
        wide: dtype of the sums of gradients.
        device: where a model on the meta device is to be, undrawn; only one group at a time is there whole. None: it stays.
    """
    # A block's output is a view, which matters only to whoever changes it in place; nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    # Rotary angles stay fp32, so inputs are not cast; parameters that are not floating (an int8 base) are held whole by everyone.
    policy = MixedPrecisionPolicy(param_dtype=work_dtype, reduce_dtype=wide, cast_forward_inputs=False)
    whole = {p for p in model.parameters() if not p.is_floating_point()}
    for block in model.blocks:
        _materialise(block, device, wide)
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=whole)
        register_fsdp_forward_method(block, "train_forward")
    # The head is used outside of forward, by the loss, so the outer group stays gathered until its gradient is there.
    _materialise(model, device, wide)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=whole)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # A step's loss is divided by the targets of all rows, so gradients are summed, not averaged. gloo knows no scaled sum.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a divided tensor, sharing memory; another tensor as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    rows: Tensor = tensor.to_local()
    return rows


class ShardedStepper(Stepper):
    """See ``Stepper``.

    Args:
        model: with its weights, the same in every process; or on the meta device, to be given ``start``.
        config: as there.
        machine: as there.
        objective: as there.
        world: as there.
        start: values of a model on the meta device, in the order of its parameters; only the main process's are read.
    """

    even = True  # gathering weights takes everyone

    def __init__(
        self,
        model: Transformer,
        config: TrainConfig,
        machine: Machine,
        objective: Objective | None,
        world: World,
        start: Values | None = None,
    ) -> None:
        self.start = start
        super().__init__(model, config, machine, objective=objective, world=world)

    def _place(self, model: Transformer) -> Transformer:
        machine = self.machine
        self.skeleton = _skeleton(model)
        self.mesh = init_device_mesh(machine.device, (self.world.size,))
        if self.start is None:
            for parameter in model.parameters():
                wide = self.wide if parameter.is_floating_point() else parameter.dtype
                parameter.data = parameter.data.to(machine.device, wide)
        self._accelerated(model)
        shard(model, self.mesh, machine.torch_dtype, self.wide, machine.device)
        self._fill(model)
        return model

    @torch.no_grad()
    def _fill(self, model: Transformer) -> None:
        """Start values of a model that was made without any: the main process draws them, one parameter at a time."""
        if self.start is None:
            return
        given = iter(self.start)
        for name, parameter in model.named_parameters():
            value = torch.empty(parameter.shape, dtype=self.wide, device=self.machine.device)
            if self.world.is_main:
                drawn, tensor = next(given)
                assert drawn == name, "start values come in the order of the parameters"
                value.copy_(tensor)
            self.world.from_main(value)
            local(parameter.data).copy_(value[_slice(len(value), self)])

    def _optimizer(self) -> Optimizer:
        data = {name: local(p.data) for name, p in self.masters.items()}
        shapes = {name: p.shape for name, p in self.masters.items()}
        return SharedOptimizer(data, self.model.config, self.config, self.machine.torch_dtype, self.world, shapes)

    def _workers(self, count: int) -> Workers:
        return ShardedWorkers(self.work, self.optimizer.grads)

    def _join(self) -> None:
        """The backward passes did it."""

    def refresh(self) -> None:
        """Working weights are made from the masters whenever they are gathered."""

    def norms(self, tensors: Mapping[str, Tensor]) -> list[float]:
        """See ``Stepper``."""
        return [square**0.5 for square in self.world.sums(*(norm**2 for norm in super().norms(tensors)))]

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See ``Stepper``; divided ones, which know their place in the whole."""
        weights = {n: self._divided(n, local(p.data)) for n, p in self.masters.items()}
        state = {key: self._divided(key.partition(".")[2], t) for key, t in self.optimizer.state().items()}
        return weights, state

    def _divided(self, name: str, rows: Tensor) -> Tensor:
        shape = self.masters[name].shape
        made: Tensor = DTensor.from_local(
            rows, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=torch.empty(shape, device="meta").stride()
        )
        return made

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor] | None) -> None:
        """See ``Stepper``; whole tensors or divided ones."""
        for mine, given in zip(self.tensors(), (weights, state), strict=True):
            for name, tensor in mine.items() if given is not None else ():
                found = given[name] if given is not None else tensor
                rows = local(found) if isinstance(found, DTensor) else found[_slice(len(found), self)]
                local(tensor).copy_(rows)

    @torch.no_grad()
    def finished(self) -> Transformer:
        """A model on the CPU with the whole weights. One that began on the meta device is whole in the main process alone."""
        self.workers.close()
        for name, parameter in self.work.named_parameters():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.data
            if self.start is None or self.world.is_main:
                made = nn.Parameter(whole.detach().cpu(), requires_grad=parameter.requires_grad)
                _put(self.skeleton, name, made)
        return self.skeleton.eval()


class ShardedWorkers(Workers):
    """One worker, in the calling thread, whose last part sums gradients over all processes."""

    def __init__(self, model: Transformer, sums: dict[str, Tensor]) -> None:
        self.workers = [_ShardedWorker(model, sums, None)]
        self.pool = None
        self.threads = torch.get_num_threads()


class _ShardedWorker(Worker):
    def run(self, part_loss: PartLoss, parts: Sequence[int], train: bool) -> list[Tensor]:
        """See ``Worker``."""
        losses = []
        model = self.model
        assert isinstance(model, FSDPModule)
        with torch.set_grad_enabled(train):
            for place, part in enumerate(parts):
                if train:
                    model.set_requires_gradient_sync(place == len(parts) - 1)
                loss = part_loss(self.model, part)
                if train:
                    loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach().cpu().double())
        if train:
            self._collect()
        else:
            model.reshard()  # without a backward pass nothing else drops the outer group
        return losses

    @torch.no_grad()
    def _collect(self) -> None:
        for name, p in self.params.items():
            if p.grad is not None:
                self.sums[name].copy_(local(p.grad))
                p.grad = None


def _materialise(module: nn.Module, device: str | None, dtype: torch.dtype) -> None:
    for child in module.modules() if device is not None else ():
        for name, p in list(child.named_parameters(recurse=False)):
            if p.is_meta and not isinstance(p, DTensor):
                _put(child, name, nn.Parameter(torch.empty(p.shape, dtype=dtype, device=device), p.requires_grad))


def _skeleton(model: Transformer) -> Transformer:
    """A copy without weights."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, memo=memo)


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    parent, _, own = name.rpartition(".")
    place = model.get_submodule(parent) if parent else model
    if isinstance(place, nn.ParameterDict):
        place[own] = parameter
    else:
        setattr(place, own, parameter)


def _slice(rows: int, stepper: Stepper) -> slice:
    held = shard_rows(rows, stepper.world.rank, stepper.world.size)
    return slice(held.start, held.stop)

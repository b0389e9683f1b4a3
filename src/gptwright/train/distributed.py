"""The processes that train one model together: who this one is, sums over all, what the first decides for all, and who was lost.

One process is the trivial case: it is the main one, sums are what they were, decisions are its own, and torch.distributed is not touched.
Each process makes the whole batch of a step and takes its own rows of it, so the order of all tokens does not depend on their number.
"""

import atexit
import contextlib
import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from gptwright.core import launch
from gptwright.core.errors import GptwrightError, Interrupted, UserError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
_POLL_S = 0.1
_LEAVE_S = 10.0


class PeerLost(Interrupted):
    """Another process of the run ended or went silent; the run goes on from its last checkpoint."""

    def __init__(self, cause: BaseException) -> None:
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        why = re.sub(r"^\[\S*\]\s*", "", first).split(". ")[
            0
        ]  # gloo begins with a place in its source and ends with advice
        super().__init__(
            f"another process of this run ended or went silent ({why}); run the same command to go on from the last checkpoint"
        )


class Elsewhere(GptwrightError):
    """What ended the main process, told to the others.

    Args:
        message: the main process's.
        code: its exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class World:
    """One process. ``Processes`` is the same for several."""

    rank = 0
    size = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, keeps the ledger and shows progress."""
        return self.rank == 0

    def rows(self, count: int, unit: int = 1) -> range:
        """This process's rows of a batch: neighbours, and whole units.

        Args:
            count: rows of the whole batch.
            unit: rows that belong together.
        """
        units = -(-count // unit)
        first, last = (min(count, unit * (n * units // self.size)) for n in (self.rank, self.rank + 1))
        return range(first, last)

    def most_rows(self, count: int, unit: int = 1) -> int:
        """The rows of the process that has the most; ``rows`` gives nobody more."""
        units = -(-count // unit)
        return min(count, unit * -(-units // self.size))

    def connect(self, device: str, timeout_s: float) -> None:
        """Meet the others before the first sum."""

    def sums(self, *values: float) -> tuple[float, ...]:
        """Each number summed over all processes."""
        return values

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place."""

    def most(self, *values: int) -> tuple[int, ...]:
        """The largest that any process says, of each number."""
        return values

    def share(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the main process, given to all; it must fit into JSON. An error there is raised in all."""
        return make()

    def from_main(self, tensor: Tensor) -> None:
        """Put the main process's tensor in place."""

    def tell(self, value: Any) -> None:
        """Leave a message for the others; the main process only."""

    def hear(self) -> Any:
        """The main process's next message, however long it takes to come; the others only."""
        raise AssertionError("one process has nobody to hear")

    def leave(self) -> None:
        """Part from the others, when all is done."""

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that another process is gone."""
        return False


ONE = World()


class Talk:
    """A group of all processes that exchanges JSON. Threads need one each: calls of a group must have one order everywhere."""

    def __init__(self, timeout: datetime.timedelta) -> None:
        self.group = dist.new_group(backend="gloo", timeout=timeout)

    def from_main(self, value: Any) -> Any:
        """The main process's value."""
        data = _bytes(value) if dist.get_rank() == 0 else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([data.numel()])
        dist.broadcast(length, 0, group=self.group)
        if dist.get_rank() != 0:
            data = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self.group)
        return json.loads(data.numpy().tobytes())

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        data = _bytes(value)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(lengths, torch.tensor([data.numel()]), group=self.group)
        longest = max(int(length) for length in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: data.numel()] = data
        every = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(every, padded, group=self.group)
        return [json.loads(d.numpy()[: int(n)].tobytes()) for d, n in zip(every, lengths, strict=True)]


class Processes(World):
    """Several processes. The store passes messages without a limit of time, the groups sum and detect who is gone.

    Args:
        store: of the rendezvous.
        rank: of this process.
        size: how many there are.
    """

    talk: Talk
    disk: Talk  # for the thread that writes checkpoints

    def __init__(self, store: "Store", rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.store = dist.distributed_c10d.PrefixStore("gptwright", store)
        self.told = 0
        self.connected = self.broken = False

    def connect(self, device: str, timeout_s: float) -> None:
        """See ``World``. Who is silent for ``timeout_s`` counts as lost."""
        if self.connected:
            return
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device not in ("cpu", "cuda"):
            raise UserError(f"several processes cannot train on {device}", where="device", fix="Use cpu or cuda")
        timeout = datetime.timedelta(seconds=timeout_s)
        if device == "cuda":
            torch.cuda.set_device(launch.local_rank())
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, timeout=timeout)
            atexit.register(self._close)
        self.talk, self.disk, self.connected = Talk(timeout), Talk(timeout), True

    def sums(self, *values: float) -> tuple[float, ...]:
        """See ``World``; in fp64."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.talk.group)
        return tuple(total.tolist())

    def add(self, tensor: Tensor) -> None:
        """See ``World``."""
        dist.all_reduce(tensor)

    def most(self, *values: int) -> tuple[int, ...]:
        """See ``World``."""
        highest = torch.tensor([int(value) for value in values])
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.talk.group)
        return tuple(highest.tolist())

    def share(self, make: Callable[[], T]) -> T:
        """See ``World``."""
        error: BaseException | None = None
        told: dict[str, Any] = {}
        if self.is_main:
            try:
                told = {"value": make()}
            except BaseException as raised:
                error = raised
                told = {"error": str(raised), "code": getattr(raised, "exit_code", 1)}
        told = self.talk.from_main(told)
        if error is not None:
            raise error
        if "error" in told:
            raise Elsewhere(told["error"], told["code"])
        value: T = told["value"]
        return value

    def from_main(self, tensor: Tensor) -> None:
        """See ``World``."""
        dist.broadcast(tensor, 0)

    def tell(self, value: Any) -> None:
        """See ``World``."""
        self.store.set(f"told-{self.told}", json.dumps(value))
        self.told += 1

    def hear(self) -> Any:
        """See ``World``.

        Raises:
            PeerLost: the process that keeps the messages is gone.
        """
        key = f"told-{self.told}"
        try:
            while not self.store.check([key]):
                time.sleep(_POLL_S)
            message = self.store.get(key)
        except dist.DistError as error:
            raise PeerLost(error) from error
        self.told += 1
        return json.loads(message)

    def leave(self) -> None:
        """See ``World``. The main process goes last, since it may keep the messages. They may meet again."""
        with contextlib.suppress(RuntimeError):
            if self.is_main:
                end = time.monotonic() + _LEAVE_S
                while self.store.add(f"left-{self.told}", 0) < self.size - 1 and time.monotonic() < end:
                    time.sleep(_POLL_S)
            else:
                self.store.add(f"left-{self.told}", 1)

    def _close(self) -> None:
        if not self.broken and dist.is_initialized():  # with one gone it would wait for it
            dist.destroy_process_group()

    def lost(self, error: BaseException) -> bool:
        """See ``World``. gloo names itself in its errors, whose type is a plain one."""
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, dist.DistError) or (isinstance(seen, RuntimeError) and "gloo" in str(seen).lower()):
                self.broken = True
                return True
            seen = seen.__cause__ or seen.__context__
        return False


@functools.cache
def launched() -> World:
    """The processes that this one was started with; ``ONE`` when it was started alone.

    Raises:
        UserError: the others cannot be reached.
    """
    if not dist.is_available():
        return ONE
    if dist.is_initialized():  # Ray Train has done it already
        if dist.get_world_size() == 1:
            return ONE
        store = dist.distributed_c10d._get_default_store()
        return Processes(store, dist.get_rank(), dist.get_world_size())
    if launch.size() == 1:
        return ONE
    try:
        store, rank, size = next(rendezvous("env://"))
    except (dist.DistError, ValueError) as error:
        raise UserError(
            f"the processes of this launch cannot meet: {error}", where="MASTER_ADDR, MASTER_PORT"
        ) from error
    return Processes(store, rank, size)


def flatten(tensors: dict[str, Tensor]) -> Tensor | None:
    """Lay tensors of one dtype end to end in one buffer, which they become views of, so that one sum does for all.

    Args:
        tensors: by name; each value is replaced by a view with the same content.

    Returns:
        The buffer; None when there is nothing.
    """
    if not tensors:
        return None
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    place = 0
    for name, tensor in tensors.items():
        tensors[name] = flat[place : place + tensor.numel()].view(tensor.shape)
        place += tensor.numel()
    return flat


def owners(costs: Sequence[float], size: int) -> list[int]:
    """Which process does each piece of work: the largest first, each to whom has least so far.

    Args:
        costs: of each piece.
        size: processes.

    Returns:
        A rank for each piece, the same on every process.
    """
    loads, found = [0.0] * size, [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda n: (-costs[n], n)):
        found[number] = min(range(size), key=lambda rank: (loads[rank], rank))
        loads[found[number]] += costs[number]
    return found


def _bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)

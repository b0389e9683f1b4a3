"""The optimizer of several processes: gradients are theirs together, Muon's matrices are shared out, and all end with the same masters.

Muon needs whole matrices. Each has an owner, which orthogonalises it; what it takes and gives depends on where the rows are:

    replicas  everyone holds all gradients: the owner takes its own, and one all-gather gives the updates to all
    shards    everyone holds some rows of each: one all-to-all brings the owners whole matrices, another brings the rows of updates back

What travels is in the dtype of the products, in which a single process orthogonalises too; so the arithmetic is the same.
"""

from collections.abc import Mapping
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from gptwright.model.config import ModelConfig
from gptwright.train.config import TrainConfig
from gptwright.train.distributed import World, owners
from gptwright.train.optim import Optimizer, Part, Task, parts


def shard_rows(rows: int, rank: int, size: int) -> range:
    """The rows of a tensor that a process holds: torch's ``Shard(0)``, even pieces, the last ones shorter or empty."""
    each = -(-rows // size)
    return range(min(rows, rank * each), min(rows, (rank + 1) * each))


class SharedOptimizer(Optimizer):
    """See ``Optimizer``.

    Args:
        masters: this process's: whole ones of replicas, or some rows of each.
        model_config: as there.
        config: as there.
        fast_dtype: as there.
        world: of several processes.
        shapes: of the whole parameters, by name; None: masters are whole.
    """

    def __init__(
        self,
        masters: Mapping[str, Tensor],
        model_config: ModelConfig,
        config: TrainConfig,
        fast_dtype: torch.dtype,
        world: World,
        shapes: Mapping[str, torch.Size] | None = None,
    ) -> None:
        super().__init__(masters, model_config, config, fast_dtype)
        self.world, self.sharded = world, shapes is not None
        whole = shapes or {name: tensor.shape for name, tensor in masters.items()}
        found = {name: parts(name, whole[name], model_config) for name in masters if config.optimizer == "muon"}
        self.maps = {name: split for name, split in found.items() if split is not None}
        self.adam = [name for name in masters if name not in self.maps]
        self.second = {name: torch.zeros_like(masters[name]) for name in self.adam}
        self.shapes = {name: whole[name] for name in self.maps}
        costs = [
            sum(min(end - start, s[1]) * (end - start) * s[1] for start, end in self.maps[n])
            for n, s in self.shapes.items()
        ]
        self.owned: list[list[str]] = [[] for _ in range(world.size)]
        for name, owner in zip(self.shapes, owners(costs, world.size), strict=True):
            self.owned[owner].append(name)

    def grad_norm(self) -> Tensor:
        """See ``Optimizer``; of all shards together."""
        norm = super().grad_norm()
        if not self.sharded:
            return norm
        (total,) = self.world.sums(float(norm.double().square()))
        return torch.tensor(total, dtype=torch.float64).sqrt().to(norm.dtype)

    @torch.no_grad()
    def _matrices(self, share: float, clip: float) -> None:
        if not self.maps:
            return
        mine = self.owned[self.world.rank]
        if self.sharded:
            pieces = {name: self._direction(name, 0, len(self.grads[name]), clip) for name in self.maps}
            whole = self._to_owners(pieces)
        else:
            for name in self.maps:
                if name not in mine:  # the momentum of replicas is everyone's
                    self.first[name].lerp_(self.grads[name].mul_(clip), 1 - self.config.momentum)
            whole = {name: self._direction(name, 0, len(self.grads[name]), clip) for name in mine}
        updates = self._updates(whole)
        for name, update in (self._to_shards(updates) if self.sharded else self._to_all(updates)).items():
            self._move_rows(name, update, share)

    def _updates(self, whole: dict[str, Tensor]) -> dict[str, Tensor]:
        """Orthogonalised matrices (R, C) of whole ones; equal shapes go together, as in one process."""
        groups: dict[tuple[int, int], list[Part]] = {}
        for name, matrix in whole.items():
            for start, end in self.maps[name]:
                key = (min(end - start, matrix.shape[1]), max(end - start, matrix.shape[1]))
                groups.setdefault(key, []).append((name, start, end))
        made = {
            name: torch.empty(matrix.shape, dtype=self.fast_dtype, device=matrix.device)
            for name, matrix in whole.items()
        }

        def do(entries: list[Part]) -> None:
            found = self._orthogonal([whole[name][start:end] for name, start, end in entries])
            for (name, start, end), update in zip(entries, found, strict=True):
                made[name][start:end] = update

        tasks: list[Task] = []
        for key in sorted(groups, key=lambda rc: -rc[0] * rc[0] * rc[1]):
            entries, count = groups[key], min(self.workers, len(groups[key]))
            for i in range(count):
                some = entries[i * len(entries) // count : (i + 1) * len(entries) // count]
                tasks.append(partial(do, some))
        self.parallel(tasks)
        return made

    def _move_rows(self, name: str, update: Tensor, share: float) -> None:
        """Move this process's rows of a parameter, map by map."""
        held = range(len(update))
        if self.sharded:
            held = shard_rows(self.shapes[name][0], self.world.rank, self.world.size)
        for start, end in self.maps[name]:
            low, high = max(start, held.start), min(end, held.stop)
            if low < high:
                at = slice(low - held.start, high - held.start)
                self._move(name, at.start, at.stop, update[at], share, rows=end - start)

    def _rows(self, name: str, rank: int) -> int:
        return len(shard_rows(self.shapes[name][0], rank, self.world.size))

    def _to_owners(self, pieces: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows from everyone, put together for this process's own matrices."""
        world, mine = self.world, self.owned[self.world.rank]
        send = [pieces[name].reshape(-1).to(self.fast_dtype) for names in self.owned for name in names]
        counts = [sum(pieces[name].numel() for name in names) for names in self.owned]
        expected = [sum(self._rows(name, rank) * self.shapes[name][1] for name in mine) for rank in range(world.size)]
        got = self._exchange(send, counts, expected)
        whole: dict[str, list[Tensor]] = {name: [] for name in mine}
        for rank, received in enumerate(got):
            sizes = [self._rows(name, rank) * self.shapes[name][1] for name in mine]
            for name, rows in zip(mine, torch.split(received, sizes), strict=True):
                whole[name].append(rows.view(-1, self.shapes[name][1]))
        return {name: torch.cat(rows) for name, rows in whole.items()}

    def _to_shards(self, updates: dict[str, Tensor]) -> dict[str, Tensor]:
        """The way back: this process's rows of every matrix."""
        world = self.world
        send, counts = [], []
        for rank in range(world.size):
            rows = [
                update[slice(*_ends(shard_rows(len(update), rank, world.size)))].reshape(-1)
                for update in updates.values()
            ]
            send += rows
            counts.append(sum(r.numel() for r in rows))
        sizes = [[self._rows(name, world.rank) * self.shapes[name][1] for name in names] for names in self.owned]
        got = self._exchange(send, counts, [sum(group) for group in sizes])
        found = {}
        for names, group, received in zip(self.owned, sizes, got, strict=True):
            for name, part in zip(names, torch.split(received, group), strict=True):
                found[name] = part.view(-1, self.shapes[name][1])
        return found

    def _exchange(self, send: list[Tensor], counts: list[int], expected: list[int]) -> list[Tensor]:
        """All-to-all of flat buffers. Returns what came from each rank."""
        device = next(iter(self.masters.values())).device
        nothing = torch.empty(0, dtype=self.fast_dtype, device=device)
        received = torch.empty(sum(expected), dtype=self.fast_dtype, device=device)
        dist.all_to_all_single(received, torch.cat([nothing, *send]), expected, counts)
        return list(torch.split(received, expected))

    def _to_all(self, updates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Everyone's updates for everyone, in buffers of one length."""
        sizes = [[self.shapes[name].numel() for name in names] for names in self.owned]
        longest = max(sum(group) for group in sizes)
        device = next(iter(self.masters.values())).device
        own = torch.zeros(longest, dtype=self.fast_dtype, device=device)
        if updates:
            flat = torch.cat([update.reshape(-1) for update in updates.values()])
            own[: flat.numel()] = flat
        every = torch.empty(longest * self.world.size, dtype=self.fast_dtype, device=device)
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13
        gather(every, own)
        found = {}
        for names, group, buffer in zip(self.owned, sizes, torch.split(every, longest), strict=True):
            for name, update in zip(names, torch.split(buffer[: sum(group)], group), strict=True):
                found[name] = update.view(self.shapes[name])
        return found


def _ends(rows: range) -> tuple[int, int]:
    return rows.start, rows.stop

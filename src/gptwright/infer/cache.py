"""Keys and values of running requests in pages of 64 positions, and the pages of earlier prompts and answers for whoever begins alike.

A request leases all pages that it may come to need before it starts, so none is ever stopped half way for want of memory. Pages that are full
never change again: they are kept by what they hold (their tokens and all before them), and the next turn of a conversation, or another request
with the same beginning, starts from them. What was not used for the longest time goes first.

Source: paged attention (arXiv 2309.06180), prefix reuse by block as in vLLM's automatic prefix caching.
"""

import heapq
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gptwright.model.config import ModelConfig

PAGE = 64
_KEPT_BYTES = 2**30  # of pages that nobody uses
_Key = tuple[int, tuple[int, ...]]


@dataclass(eq=False)
class Lease:
    """Pages of one request.

    Args:
        pages: their numbers, in order of the positions.
        reused: positions that were there already.
        root: separates what must not be mixed (adapters change keys and values).
    """

    pages: list[int]
    reused: int
    root: int
    table: Tensor  # the same as int32, for the kernels
    shared: int = 0  # pages that are known by their content
    node: int = field(default=0)


class PagedCache:
    """One tensor (2K, positions, E) for each layer: K heads of keys, then K of values; page p holds positions 64 p to 64 p + 63 of it.

    Memory comes from the system when a page is first written, not before.

    Args:
        config: the model's shape.
        dtype: of keys and values.
        device: where they live.
        size_bytes: most memory.
        max_batch: requests at once; there is never more room than they can use twice over.
    """

    def __init__(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        size_bytes: int = 2**32,
        max_batch: int = 32,
    ) -> None:
        self.page_bytes = 2 * config.n_layers * config.n_kv_heads * PAGE * config.d_head * dtype.itemsize
        longest = pages_for(config.seq_len)
        # One request of full length must always fit, or it would wait for ever.
        self.n_pages = max(longest, min(size_bytes // self.page_bytes, 2 * longest * max_batch))
        shape = (2 * config.n_kv_heads, self.n_pages * PAGE, config.d_head)
        self.layers = [_zeros(shape, dtype, torch.device(device)) for _ in range(config.n_layers)]
        self._never = 0  # pages from here on were never used
        self._free: list[int] = []  # a heap: low numbers first keep the memory dense and neighbours together
        self._users = [0] * self.n_pages
        self._known: dict[_Key, int] = {}
        self._key_of: dict[int, _Key] = {}
        self._node_of: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # known pages without user, longest unused first
        self._nodes = 0
        self._kept = max(_KEPT_BYTES // self.page_bytes, longest)
        self.reused_tokens = 0

    @property
    def used_pages(self) -> int:
        """Pages that requests hold."""
        return self._never - len(self._free) - len(self._idle)

    @property
    def kept_pages(self) -> int:
        """Pages that nobody holds, kept for what they contain."""
        return len(self._idle)

    def open(self, ids: Sequence[int], most_tokens: int, root: int = 0, unit: int = PAGE) -> Lease | None:
        """Lease pages for a request.

        Args:
            ids: its prompt.
            most_tokens: positions that it may come to need.
            root: only pages stored under the same root are reused.
            unit: what is reused is a multiple of this many positions (itself a multiple of a page).

        Returns:
            The lease, or None: there is no room now.
        """
        found: list[int] = []
        node = -1 - root
        # The last token is always computed: its logits are needed.
        for begin in range(0, (len(ids) - 1) // PAGE * PAGE, PAGE):
            page = self._known.get((node, tuple(ids[begin : begin + PAGE])))
            if page is None:
                break
            found.append(page)
            node = self._node_of[page]
        found = found[: len(found) * PAGE // unit * unit // PAGE]
        need = pages_for(most_tokens) - len(found)
        idle = sum(self._users[page] == 0 for page in found)
        if need > self.n_pages - self._never + len(self._free) + len(self._idle) - idle:
            return None
        for page in found:
            self._users[page] += 1
            self._idle.pop(page, None)
        pages = found + [self._take() for _ in range(need)]
        self.reused_tokens += len(found) * PAGE
        node = self._node_of[found[-1]] if found else -1 - root
        return Lease(pages, len(found) * PAGE, root, torch.tensor(pages, dtype=torch.int32), len(found), node)

    def share(self, lease: Lease, ids: Sequence[int]) -> None:
        """Make full pages known to others.

        Args:
            lease: of the request.
            ids: the tokens whose keys and values are stored, from the first.
        """
        while (lease.shared + 1) * PAGE <= len(ids):
            page = lease.pages[lease.shared]
            key = (lease.node, tuple(ids[lease.shared * PAGE : (lease.shared + 1) * PAGE]))
            twin = self._known.get(key)
            if twin is None:
                self._nodes += 1
                self._known[key], self._key_of[page], self._node_of[page] = page, key, self._nodes
                twin = page
            lease.node = self._node_of[twin]
            lease.shared += 1

    def close(self, lease: Lease) -> None:
        """Give the pages back; known ones stay for others until the room is needed."""
        for page in reversed(lease.pages):  # the end of a text is dropped before its beginning
            self._users[page] -= 1
            if self._users[page] == 0:
                if page in self._key_of:
                    self._idle[page] = None
                else:
                    heapq.heappush(self._free, page)
        lease.pages = []
        while len(self._idle) > self._kept:
            heapq.heappush(self._free, self._evict())

    def clear(self) -> None:
        """Forget all kept pages."""
        while self._idle:
            heapq.heappush(self._free, self._evict())

    def _take(self) -> int:
        if self._free:
            page = heapq.heappop(self._free)
        elif self._never < self.n_pages:
            page, self._never = self._never, self._never + 1
        else:
            page = self._evict()
        self._users[page] = 1
        return page

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        del self._known[self._key_of.pop(page)], self._node_of[page]
        return page

    def check_integrity(self, leases: Sequence[Lease]) -> None:
        """Invariants; for tests."""
        users = [0] * self.n_pages
        for lease in leases:
            for page in lease.pages:
                users[page] += 1
        assert users == self._users
        assert not set(self._free) & set(self._idle)
        assert all(users[page] == 0 for page in (*self._free, *self._idle))
        assert self.used_pages == sum(u > 0 for u in users)
        assert {page: self._known[key] for page, key in self._key_of.items()} == {page: page for page in self._key_of}


def pages_for(tokens: int) -> int:
    """Pages that hold so many positions."""
    return -(-tokens // PAGE)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, not garbage: masked positions are multiplied by a weight of 0, and 0 * NaN would be NaN."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # NumPy asks the system for zeroed memory, which is there only once it is touched; torch.zeros writes to all of it.
    same_size = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.itemsize]
    return torch.from_numpy(np.zeros(shape, dtype=same_size)).view(dtype)


def quarter_of_memory() -> int:
    """A quarter of the machine's memory. Bytes."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        total = 8 * 2**30
    return total // 4

"""The forward pass as one compiled call (decode.cpp): built once per processor, called through ctypes. No compiler: None, and PyTorch does it."""

import ctypes
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptwright.core.progress import say
from gptwright.infer.adapters import PARTS, Adapter
from gptwright.infer.cache import PagedCache
from gptwright.infer.pack import BF16, F32, INT4, INT8, Packed, pack
from gptwright.infer.runner import Part
from gptwright.model.native import compiled
from gptwright.model.transformer import Block, RMSNorm, Transformer, rope_tables

_SOURCES = [Path(__file__).with_name(name) for name in ("decode.cpp", "tiles.h", "team.h")]
# No -ffast-math and no reassociation: the order of every sum is part of what is promised.
_FLAGS = "-O3 -std=c++17 -fPIC -shared -fvisibility=hidden -fno-math-errno -fno-trapping-math -pthread"
_ATTEMPTS = ("-march=native -mprefer-vector-width=512", "-march=native", "-mcpu=native", "")
_I, _P, _D = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
KINDS = {"fp32": F32, "bf16": BF16, "int8": INT8, "int4": INT4}


class _Matrix(ctypes.Structure):
    _fields_ = [("kind", _I), ("rows", _I), ("columns", _I), ("weight", _P), ("scale", _P), ("bias", _P)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _P) for name in ("norm1", "norm1_bias", "norm2", "norm2_bias", "q_norm", "k_norm")),
        *((name, _Matrix) for name in ("qkv", "out", "gate", "up", "down")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, _I) for name in ("layers", "width", "heads", "kv_heads", "d_head", "inner", "layer_norm", "window")),
        *((name, _I) for name in ("kv_bf16", "table_bf16")),
        ("eps", _D),
        *((name, _P) for name in ("embedding", "positions", "norm", "norm_bias", "cos", "sin", "layer")),
        ("head", _Matrix),
    ]


class _Update(ctypes.Structure):
    _fields_ = [("down", _P), ("up", _P), ("rank", _I)]


class _Part(ctypes.Structure):
    _fields_ = [("first", _I), ("count", _I), ("position", _I), ("pages", _P), ("adapter", _P)]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, _I) for name in ("tokens", "parts", "outputs", "threads", "head_positions")),
        *((name, _P) for name in ("ids", "output", "part", "store", "logits")),
    ]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library for this processor, compiled now (about 5 s) or found in the cache; None where that cannot be done."""
    try:
        loaded, _ = compiled(_SOURCES, _FLAGS, _ATTEMPTS)
        loaded.forward.argtypes, loaded.forward.restype = [_P, _P], None
        loaded.instructions.argtypes, loaded.instructions.restype = [], _I
        return loaded
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        say(f"compiled generation is off, answers come at about half speed: {error}")
        return None


def instructions() -> int:
    """What the library was built for: 0 plain C++, 1 AVX512-VNNI, 2 with AVX512-BF16; -1 there is none."""
    loaded = library()
    return -1 if loaded is None else int(loaded.instructions())


def fits(model: Transformer) -> bool:
    """Whether the kernels can run a model: on the CPU, no unmerged adapter, heads a multiple of 16 wide."""
    plain = all(type(m) is nn.Linear for m in model.modules() if isinstance(m, nn.Linear))
    weight = model.embedding.weight
    floats = weight.dtype in (torch.float32, torch.bfloat16)
    return plain and weight.device.type == "cpu" and floats and model.config.d_head % 16 == 0


class NativeRunner:
    """A model prepared for the compiled forward pass.

    Args:
        model: its weights are read now; see ``fits``.
        vocab_size: real ids; the logits of padding rows are not computed.
        kind: number format of the matrices: fp32, bf16, int8 or int4 (whose head is int8).
        threads: used unless a call says otherwise; default PyTorch's number.

    Raises:
        RuntimeError: there is no library.
    """

    # A token's bits do not depend on the batch, on how its prompt was cut, or on the threads.
    exact = True

    def __init__(self, model: Transformer, vocab_size: int, kind: str, threads: int | None = None) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("no compiled library")
        self._library, self.config, self.kind = loaded, model.config, kind
        self.vocab_size, self.threads = vocab_size, threads or torch.get_num_threads()
        self.dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        self.device = torch.device("cpu")
        self._held: list[Any] = []  # what the structures point to
        self.size_bytes = 0
        c = model.config
        layers = (_Layer * c.n_layers)()
        for layer, block in zip(layers, model.blocks, strict=True):
            assert isinstance(block, Block)
            self._fill(layer, block, KINDS[kind])
        cos = sin = None
        if model.positions is None:
            at = torch.arange(c.seq_len)[None]
            wide = rope_tables(at, c.d_head, c.rope_theta, torch.float32, c.rope_scaling)
            cos, sin = (table[0, :, 0, : c.d_head // 2] for table in wide)
        table = model.embedding.weight.detach()
        positions = None if model.positions is None else model.positions.weight.detach().to(table.dtype)
        head = pack(model.head_weight.detach()[:vocab_size], INT8 if kind == "int4" else KINDS[kind])
        eps = model.norm.eps if isinstance(model.norm, RMSNorm) else c.norm_eps
        self._model = _Model(
            c.n_layers,
            c.d_model,
            c.n_heads,
            c.n_kv_heads,
            c.d_head,
            c.d_ff,
            int(isinstance(model.norm, nn.LayerNorm)),
            c.window or 0,
            int(self.dtype == torch.bfloat16),
            int(table.dtype == torch.bfloat16),
            eps,
            self._keep(table),
            self._keep(positions),
            self._floats(getattr(model.norm, "weight", None)),
            self._floats(getattr(model.norm, "bias", None)),
            self._floats(cos),
            self._floats(sin),
            ctypes.cast(layers, _P),
            self._matrix(head, None),
        )
        self._held.append(layers)

    def _fill(self, layer: _Layer, block: Block, kind: int) -> None:
        a, f = block.attention, block.feed_forward
        for name, norm in (("norm1", block.norm1), ("norm2", block.norm2), ("q_norm", a.q_norm), ("k_norm", a.k_norm)):
            setattr(layer, name, self._floats(getattr(norm, "weight", None)))
            if name in ("norm1", "norm2"):
                setattr(layer, f"{name}_bias", self._floats(getattr(norm, "bias", None)))
        gate, up = f.up.weight.chunk(2) if f.gated else (None, f.up.weight)
        layer.qkv = self._matrix(pack(a.qkv.weight, kind), a.qkv.bias)
        layer.out = self._matrix(pack(a.out.weight, kind), a.out.bias)
        if gate is not None:
            layer.gate = self._matrix(pack(gate, kind), None)
        layer.up = self._matrix(pack(up, kind), f.up.bias)
        layer.down = self._matrix(pack(f.down.weight, kind), f.down.bias)

    def _matrix(self, packed: Packed, bias: Tensor | None) -> _Matrix:
        self.size_bytes += packed.size_bytes
        weight, scale = self._keep(packed.weight), self._keep(packed.scale)
        return _Matrix(packed.kind, packed.rows, packed.columns, weight, scale, self._floats(bias))

    def _floats(self, tensor: Tensor | None) -> int | None:
        return self._keep(None if tensor is None else tensor.detach().float())

    def _keep(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        tensor = tensor.contiguous()
        self._held.append(tensor)
        return tensor.data_ptr()

    def adapter(self, adapter: Adapter) -> Any:
        """An adapter as the kernels read it. It must live as long as parts refer to it."""
        updates = (_Update * (len(adapter.layers) * len(PARTS)))()
        held: list[Any] = [updates]
        for i, factors in enumerate(f for layer in adapter.layers for f in layer):
            if factors is not None:
                down, up = (t.float().contiguous() for t in factors)
                held += [down, up]
                updates[i] = _Update(down.data_ptr(), up.data_ptr(), len(down))
        return held

    def forward(self, cache: PagedCache, parts: Sequence[Part], threads: int | None = None) -> Tensor:
        """Run tokens of several sequences; see ``Runner.forward``."""
        ids = torch.tensor([token for part in parts for token in part.ids])
        rows = (_Part * len(parts))()
        wanted: list[int] = []
        first = 0
        for row, part in zip(rows, parts, strict=True):
            count = len(part.ids)
            adapter = None if part.adapter is None else ctypes.cast(part.adapter[0], _P)
            row.first, row.count, row.position = first, count, part.start
            row.pages, row.adapter = part.lease.table.data_ptr(), adapter
            wanted.extend(range(first + count - part.wanted, first + count))
            first += count
        output = torch.tensor(wanted, dtype=torch.int64)
        logits = torch.empty(len(wanted), self.vocab_size)
        stores = (_P * len(cache.layers))(*(layer.data_ptr() for layer in cache.layers))
        batch = _Batch(
            first,
            len(parts),
            len(wanted),
            threads or self.threads,
            cache.layers[0].shape[1],
            ids.data_ptr(),
            output.data_ptr(),
            ctypes.cast(rows, _P),
            ctypes.cast(stores, _P),
            logits.data_ptr(),
        )
        self._library.forward(ctypes.byref(self._model), ctypes.byref(batch))
        return logits

"""The head of a GGUF file: metadata and the places of its tensors. Every length is checked against the file before it is believed,
so that a hostile file costs an error message and neither memory nor time.

Source: the format's specification (ggml, docs/gguf.md), versions 2 and 3, little-endian.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError

_MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SMALLEST_FIELD, _SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
_MAX_DIMS = 4


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Args:
        shape: as PyTorch has it (rows first).
        kind: its block format.
        offset: of its first byte in the file.
        size_bytes: as stored.
    """

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Gguf:
    """A GGUF file that was found whole.

    Args:
        path: the file.
        fields: metadata, name -> value.
        tensors: name -> place.
    """

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor, dequantized to fp32.

        Raises:
            UserError: its block format cannot be read.
        """
        place = self.tensors[name]
        raw = np.memmap(self.path, np.uint8, "r", place.offset, (place.size_bytes,))
        kinds = gguf.GGMLQuantizationType
        plain = {kinds.F32: np.float32, kinds.F16: np.float16, kinds.F64: np.float64}.get(place.kind)
        if plain is not None:
            return raw.view(plain).reshape(place.shape).astype(np.float32)
        try:
            rows = raw.reshape(*place.shape[:-1], -1)
            return np.asarray(gguf.quants.dequantize(rows, place.kind), dtype=np.float32).reshape(place.shape)
        except NotImplementedError as error:
            raise UserError(
                f"{name} has format {place.kind.name}, which cannot be read",
                where=str(self.path),
                fix="Use a Q8_0, Q4_0, Q4_1, K-quant, F16, BF16 or F32 file",
            ) from error


def read_gguf(path: str | Path) -> Gguf:
    """Read the head of a GGUF file.

    Raises:
        UserError: no such file, not GGUF, truncated, or contradicting itself.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("no such file", where=str(path), fix="Give the path of a .gguf file")
    try:
        with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(data).parse(file)
    except (ValueError, struct.error, OverflowError) as error:  # ValueError: an empty file cannot be mapped
        raise UserError(f"not a readable GGUF file ({error})", where=str(path), fix="Fetch it again") from error


class _Parser:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.size = data, 0, len(data)

    def take(self, count: int) -> int:
        """The position of the next ``count`` bytes, which are passed over."""
        start = self.at
        if count > self.size - start:
            raise ValueError("it ends too soon")
        self.at += count
        return start

    def number(self, code: str) -> Any:
        layout = f"<{code}"
        return struct.unpack_from(layout, self.data, self.take(struct.calcsize(layout)))[0]

    def string(self) -> str:
        length = self.number("Q")
        start = self.take(length)
        # Vocabularies hold pieces that are no UTF-8; a name that is none will match nothing.
        return self.data[start : start + length].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise ValueError(f"unknown type {kind} of a field")
        kind, count = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            layout = f"<{count}{_SCALARS[kind]}"
            if count > self.size:
                raise ValueError("it ends too soon")
            return list(struct.unpack_from(layout, self.data, self.take(struct.calcsize(layout))))
        if kind != _STRING:
            raise ValueError(f"an array of type {kind}")
        if count > (self.size - self.at) // 8:
            raise ValueError("it ends too soon")
        return [self.string() for _ in range(count)]

    def parse(self, path: Path) -> Gguf:
        if self.data[:4] != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        self.at = 4
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError("it is big-endian" if version in (2 << 24, 3 << 24) else f"version {version}")
        tensor_count, field_count = self.number("Q"), self.number("Q")
        if field_count * _SMALLEST_FIELD + tensor_count * _SMALLEST_TENSOR > self.size:
            raise ValueError("it ends too soon")
        fields: dict[str, Any] = {}
        for _ in range(field_count):
            name = self.string()
            fields[name] = self.value(self.number("I"))
        heads = [self._tensor_head() for _ in range(tensor_count)]
        alignment = fields.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"an alignment of {alignment}")
        begin = -(-self.at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in heads:
            size = _size_bytes(name, shape, kind)
            if offset % alignment or begin + offset + size > self.size:
                raise ValueError(f"{name} lies beyond its end")
            if name in tensors:
                raise ValueError(f"{name} is there twice")
            tensors[name] = GgufTensor(shape, kind, begin + offset, size)
        return Gguf(path, fields, tensors)

    def _tensor_head(self) -> tuple[str, tuple[int, ...], gguf.GGMLQuantizationType, int]:
        name, dims = self.string(), self.number("I")
        if not 1 <= dims <= _MAX_DIMS:
            raise ValueError(f"{name} has {dims} dimensions")
        shape = tuple(reversed([int(self.number("Q")) for _ in range(dims)]))  # stored columns first
        return name, shape, gguf.GGMLQuantizationType(self.number("I")), int(self.number("Q"))


def _size_bytes(name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    elements = 1
    for length in shape:
        elements *= length
    if shape[-1] % block or not elements:
        raise ValueError(f"{name} has shape {shape}, which {kind.name} blocks do not fill")
    return int(elements // block * size)

"""Other machines than this one: a dated table of graphics cards, their peaks and what an hour of them cost, read from devices.toml.

Nothing here was measured. Whoever prints a number from it says so, with its date.
"""

import difflib
import functools
import re
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError

_TABLE = Path(__file__).with_name("devices.toml")
_PER_NODE = 8  # cards in a machine, as they are rented
_MOST = 1024


@dataclass(frozen=True)
class Price:
    """An hour of one card on demand. US dollars."""

    usd: float
    provider: str
    dated: date
    source: str


@dataclass(frozen=True)
class Device:
    """A card. Rates in FLOP/s and bytes/s, sizes in bytes; see devices.toml for what each means."""

    name: str
    title: str
    memory: float
    flops: float
    dtype: str
    bandwidth: float
    link: float
    node_link: float
    source: str
    prices: tuple[Price, ...]

    @property
    def price(self) -> Price | None:
        """The lowest price in the table, or None when there is none."""
        return min(self.prices, key=lambda price: price.usd, default=None)

    def link_for(self, gpus: int) -> float:
        """Bytes a second and card when so many work together: over the network once they do not fit one machine."""
        return self.link if gpus <= _PER_NODE else min(self.link, self.node_link)


@dataclass(frozen=True)
class Rented:
    """So many cards of one kind."""

    device: Device
    gpus: int

    @property
    def title(self) -> str:
        return self.device.title if self.gpus == 1 else f"{self.gpus} x {self.device.title}"

    @property
    def usd_per_hour(self) -> float | None:
        price = self.device.price
        return None if price is None else price.usd * self.gpus


@functools.cache
def devices(path: Path = _TABLE) -> dict[str, Device]:
    """Every card of the table by name, the fastest first."""
    table = read_table(path)
    found = [_device(row, float(table["node_link"])) for row in table["device"]]
    return {device.name: device for device in sorted(found, key=lambda device: -device.flops)}


def read_table(path: Path = _TABLE) -> dict[str, Any]:
    """The table as it stands in the file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def dated(path: Path = _TABLE) -> date:
    """When the table was put together."""
    day: date = read_table(path)["dated"]
    return day


def rented(text: str) -> Rented:
    """Read ``h100``, ``8xh100`` or ``h100x8``.

    Raises:
        UserError: no such card, or not so many.
    """
    clean = text.strip().lower().replace("_", "-").replace(" ", "")
    many = re.fullmatch(r"(\d+)[x*](.+)", clean)
    last = re.fullmatch(r"(.+?)x(\d+)", clean) if many is None and clean not in devices() else None
    count, name = (int(many[1]), many[2]) if many else (int(last[2]), last[1]) if last else (1, clean)
    known = devices()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? Known: " if near else ""
        raise UserError(f"no device {name!r} in the table", fix=f"{hint}{', '.join(known)}; or leave --device out")
    if not 1 <= count <= _MOST:
        raise UserError(f"{count} of them cannot be planned for", fix=f"Give 1 to {_MOST}, such as 8x{name}")
    return Rented(known[name], count)


def _device(row: dict[str, Any], node_link: float) -> Device:
    prices = tuple(Price(float(p["usd"]), p["provider"], p["dated"], p["source"]) for p in row.get("price", ()))
    numbers = {name: float(row[name]) for name in ("memory", "flops", "bandwidth", "link")}
    return Device(
        name=row["name"],
        title=row["title"],
        dtype=row["dtype"],
        node_link=node_link,
        source=row["source"],
        prices=prices,
        **numbers,
    )

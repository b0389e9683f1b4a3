"""Many connections at once, half of which vanish in the middle: nothing is lost, mixed up or left behind."""

import asyncio
import json
import random
import time
from typing import Any

import httpx
import pytest

from gptwright.core.control import ControlStore
from gptwright.serve.config import ServeConfig

CHAT = "/v1/chat/completions"


async def one(client: httpx.AsyncClient, url: str, number: int, vanish: bool, found: dict[str, int]) -> None:
    """One client: reads its whole answer and checks that it is its own, or leaves after a few pieces."""
    marker = f"marker {number} " * 5
    body = {"model": "production", "messages": [{"role": "user", "content": marker}], "stream": True}
    try:
        async with client.stream("POST", url + CHAT, json=body) as response:
            if response.status_code == 429:
                found["refused"] += 1
                return
            assert response.status_code == 200
            text, pieces = "", 0
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                    pieces += 1
                    if number % 10 == 0:
                        await asyncio.sleep(0.01)  # a slow reader
                    if vanish and pieces > 3:
                        found["vanished"] += 1
                        return
            assert text.strip() == f"You said: {marker}".strip(), "an answer of somebody else"
            assert line == "data: [DONE]" or not line
            found["whole"] += 1
    except httpx.TransportError:
        found["broken"] += 1


async def load(url: str, connections: int, seconds: float) -> dict[str, int]:
    """Keep so many connections busy for so long."""
    found = dict.fromkeys(("whole", "vanished", "refused", "broken"), 0)
    chance = random.Random(1)
    end = time.monotonic() + seconds
    numbers = iter(range(10**9))
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)

    async def client(shared: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            await one(shared, url, next(numbers), chance.random() < 0.5, found)

    async with httpx.AsyncClient(limits=limits, timeout=120) as shared:
        await asyncio.gather(*(client(shared) for _ in range(connections)))
    return found


@pytest.mark.parametrize(
    ("connections", "seconds"),
    [
        pytest.param(60, 6, marks=pytest.mark.slow),
        pytest.param(500, 300, marks=[pytest.mark.slow, pytest.mark.soak]),
    ],
)
def test_server_when_half_of_many_clients_vanish_then_nothing_is_lost_mixed_or_left(
    start: Any, control: ControlStore, connections: int, seconds: float
) -> None:
    from gw_fakes import Engine, Models

    engine = Engine(delay_s=0.002)
    url, app = start(models=Models(engine), control=control, config=ServeConfig(max_concurrent=connections // 2))
    found = asyncio.run(load(url, connections, seconds))
    assert found["whole"] > 0
    assert found["vanished"] > 0
    assert found["broken"] == 0
    backend = app.state.backend
    end = time.monotonic() + 60
    while time.monotonic() < end and (backend.slots.taken or backend.active or backend._records):
        time.sleep(0.05)
    assert (backend.slots.taken, backend.slots.live, len(backend.slots.flows)) == (0, 0, 0)
    assert backend.active == 0
    assert (len(backend._records), backend.accounts._known[None].running) == (0, 0)
    assert all(request.done for request in engine.requests)
    cancelled = sum(request.finish_reason == "cancelled" for request in engine.requests)
    assert cancelled >= found["vanished"] * 0.5  # the others were nearly done when their client left
    assert httpx.get(url + "/ready").status_code == 200

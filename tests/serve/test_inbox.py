"""Pieces from another thread: all arrive, in order, and the loop is woken for many at once."""

import asyncio
import threading
from typing import Any

import pytest

from gptwright.serve.inbox import Inbox, Mail


def test_mail_when_a_thread_posts_much_then_all_comes_in_order_and_the_loop_is_woken_seldom() -> None:
    async def run() -> tuple[list[int], int]:
        loop = asyncio.get_running_loop()
        mail, inbox = Mail(loop), Inbox[int](loop)
        woken = 0
        really = loop.call_soon_threadsafe

        def count(*args: Any) -> Any:
            nonlocal woken
            woken += 1
            return really(*args)

        loop.call_soon_threadsafe = count  # type: ignore[method-assign]
        thread = threading.Thread(target=lambda: [mail.post(lambda i=i: inbox.put(i)) for i in range(20_000)])  # type: ignore[misc]
        thread.start()
        found = [await inbox.get(loop.time() + 30) for _ in range(20_000)]
        thread.join()
        inbox.close()
        return found, woken

    found, woken = asyncio.run(run())
    assert found == list(range(20_000))
    assert woken < 10_000


def test_mail_when_the_loop_is_closed_then_every_post_says_so() -> None:
    loop = asyncio.new_event_loop()
    mail = Mail(loop)
    loop.close()
    for _ in range(2):  # the engine cancels a request whose listener raises
        with pytest.raises(RuntimeError):
            mail.post(lambda: None)


def test_inbox_when_nothing_comes_then_it_times_out_and_goes_on() -> None:
    async def run() -> list[Any]:
        loop = asyncio.get_running_loop()
        inbox = Inbox[str](loop)
        found: list[Any] = []
        for wait_s in (0.05, 0.1):
            begin = loop.time()
            with pytest.raises(TimeoutError):
                await inbox.get(begin + wait_s)
            assert loop.time() >= begin + wait_s
        loop.call_later(0.02, inbox.put, "late")
        found.append(await inbox.get(loop.time() + 30))
        inbox.put("there")
        found.append(await inbox.get(0))  # what is there is given, whatever the time
        with pytest.raises(TimeoutError):
            await inbox.get(loop.time() + 0.01)
        inbox.close()
        return found

    assert asyncio.run(run()) == ["late", "there"]


def test_inbox_when_its_reader_is_cancelled_then_nothing_is_lost() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        inbox = Inbox[int](loop)
        reader = asyncio.ensure_future(inbox.get(loop.time() + 30))
        await asyncio.sleep(0)
        inbox.put(7)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        found = await inbox.get(loop.time() + 1)
        inbox.close()
        return found

    assert asyncio.run(run()) == 7

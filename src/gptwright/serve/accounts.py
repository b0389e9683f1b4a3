"""Accounts of all keys that have called: their limits now, and what they have used."""

import asyncio

from gptwright.core.control import ControlStore, utc_now
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import OpenedKey, spent_today
from gptwright.serve.limits import Account, Limits


class Accounts:
    """What each key may use and has used, in memory; only the day's budget is read from the store when a day begins.

    Args:
        control: where usage is kept; without it a day's budget counts from the start of the server.
        config: the limits of keys that have none of their own.
    """

    def __init__(self, control: ControlStore | None, config: ServeConfig) -> None:
        self._control = control
        self._default = Limits(config.requests_per_minute, config.tokens_per_minute, None, config.tokens_per_day)
        self._known: dict[int | None, Account] = {}

    async def of(self, key: OpenedKey | None) -> Account:
        """The account of a key; of everybody, where no key is asked for."""
        key_id = key.id if key is not None else None
        limits = (key.limits if key is not None else Limits()).or_else(self._default)
        account = self._known.get(key_id)
        if account is None:
            account = self._known[key_id] = Account(limits)
        elif account.limits != limits:
            account.set_limits(limits)
        today = utc_now().date()
        if account.day != today:
            account.day = today
            account.spent = 0
            if self._control is not None and limits.tokens_per_day is not None:
                account.spent += await asyncio.to_thread(spent_today, self._control, key_id)
        return account

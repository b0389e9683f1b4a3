"""What requests used, written to the control store: many rows at once, on a thread of its own.

A database that is locked or slow makes whoever asks it wait. If each answer waited for its own row, the threads that prepare answers would all
soon be waiting, and the whole server with them.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from gptwright.core.control import ControlStore, Usage

log = logging.getLogger("gptwright.serve")


class UsageWriter:
    """Writes rows in the order in which they come.

    Args:
        control: where they go.
    """

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._rows: list[Usage] = []
        self._thread = ThreadPoolExecutor(1, "gptwright-usage")  # the thread begins with the first row

    def add(self, row: Usage) -> bool:
        """Take a row; on the loop's thread.

        Returns:
            Whether nobody writes now: then ``write`` must be run.
        """
        self._rows.append(row)
        return len(self._rows) == 1

    async def write(self) -> None:
        """Write all rows, those too that come meanwhile. What cannot be written is said in the log and lost."""
        while self._rows:
            rows = list(self._rows)
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, rows)
            except Exception as error:
                log.error("what %d requests used could not be written", len(rows), exc_info=error)
            finally:
                del self._rows[: len(rows)]

    def _insert(self, rows: list[Usage]) -> None:
        with self._control.session() as session:
            session.add_all(rows)

"""What stands in a terminal of 100 columns: bars whole, tables narrow."""

import os
import re
import struct
import sys
from typing import Any

import pytest

from gptwright.cli.verb import Table, shorten

BAR = """
import time
from gptwright.core.progress import progress
with progress("pretrain", total=50, unit="steps") as bar:
    for step in range(50):
        bar.note("loss 2.133  held-out 2.096 bits/byte  5.53k tokens/s  2.59GFLOP/s  38% of matmul peak  0:04 left")
        bar.advance()
        time.sleep(0.02)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_bar_when_the_terminal_has_100_columns_then_label_rate_and_note_are_whole() -> None:
    import fcntl
    import pty
    import termios

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="100", LINES="40")
        os.execv(sys.executable, [sys.executable, "-c", BAR])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says that the other end has gone
            break
        if not part:
            break
        shown += part
    os.waitpid(pid, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert lines[-1].strip().endswith("0:04 left")
    assert re.match(r"pretrain +\S+ 100% .*steps/s", lines[-2])
    assert max(map(len, lines)) <= 100


def test_table_when_cells_differ_in_width_then_columns_line_up_and_numbers_stand_right() -> None:
    table = Table(["name", "n", "why"])
    table.add("a", 5, None)
    table.add("longer", 12345, "because")
    assert str(table).splitlines() == ["name        n  why", "a           5", "longer  12345  because"]


@pytest.mark.parametrize(("text", "shown"), [("abc", "abc"), ("abcdef", "abcd…")])
def test_shorten_when_a_text_is_too_wide_then_its_end_is_marked(text: str, shown: str) -> None:
    assert shorten(text, 5) == shown


def test_status_when_reasons_are_many_then_the_table_stays_narrow(finished: Any, gptwright: Any) -> None:
    changes = [
        "tokenizer.vocab_size=310",
        "pretrain.lr_matrix=0.01",
        "pretrain.seed=4",
        "model.depth=3",
        "finetune.seed=9",
    ]
    words = [word for change in changes for word in ("--set", change)]
    done = gptwright("status", "--project", str(finished), *words).ok()
    assert max(len(line) for line in done.out.splitlines()) <= 100
    assert "tokenizer.vocab_size: 300 became 310" in done.out

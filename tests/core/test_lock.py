"""Two runs at once: the second is told who is first; a dead process holds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptwright.core.errors import UserError
from gptwright.core.lock import stage_lock

HOLD = """
import sys, time
from pathlib import Path
from gptwright.core.lock import stage_lock
with stage_lock(Path(sys.argv[1]), "run pretrain"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_stage_lock_when_another_process_holds_it_then_the_error_names_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "held"
    with (
        pytest.raises(UserError, match=rf"already being worked on \(process {process.pid}: run pretrain\)"),
        stage_lock(tmp_path, "x"),
    ):
        pass
    process.kill()
    process.wait()
    with stage_lock(tmp_path, "x"):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()

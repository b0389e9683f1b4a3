"""Readers that run in a process of their own, because a library written in C may crash, hang or fill the memory on a hostile file.

One such process serves many files. It limits itself: so much memory, so many seconds for each step. When it dies, the file is at fault
and the next file gets a new one. What passes between the two is JSON, a line each.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gptwright.corpus.readers.base import NotText, Skip
from gptwright.corpus.readers.blob import WHOLE_BYTES, Blob, copy

STEP_S = 30  # a page of a PDF takes a hundredth of a second
MEMORY_BYTES = 3 << 30  # of addresses; a child at rest uses a tenth
_children: dict[tuple[int, str], subprocess.Popen[bytes]] = {}


def ask(kind: str, blob: Blob) -> Iterator[dict[str, Any]]:
    """Have a file read by a child process.

    Args:
        kind: which reader, a key of ``_serve``'s.

    Yields:
        Its answers.

    Raises:
        NotText, Skip: what the reader raised, or that it crashed or took too long.
    """
    with contextlib.ExitStack() as stack:
        if blob.path is not None:
            path = str(blob.path.absolute())
        else:
            spool = stack.enter_context(tempfile.NamedTemporaryFile(prefix="gptwright-"))
            with blob.open() as source:
                copy(source, spool, WHOLE_BYTES)
            spool.flush()
            path = spool.name
        child = _child(kind)
        if child.stdin is None or child.stdout is None:
            raise AssertionError("a child has pipes")
        ended = False
        try:
            child.stdin.write(json.dumps({"path": path}).encode() + b"\n")
            child.stdin.flush()
            yield from _answers(child.stdout)
            ended = True
        except (NotText, Skip):
            ended = True
            raise
        except (_Died, BrokenPipeError) as error:
            code = child.wait()
            slow = code == -14  # SIGALRM
            raise NotText(
                f"reading it took more than {STEP_S} s at one place, so it was stopped"
                if slow
                else f"it crashes the library that reads {kind.upper()} (ended with {code}); damaged, or made to do harm"
            ) from error
        finally:
            if not ended:  # the answers that are still on their way would be taken for the next file's
                _end(kind)


class _Died(Exception):
    pass


def _answers(stdout: IO[bytes]) -> Iterator[dict[str, Any]]:
    while True:
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise _Died
        answer = json.loads(line)
        if "end" in answer:
            return
        if "fault" in answer:
            raise (Skip if answer["skip"] else NotText)(answer["fault"])
        yield answer


def _child(kind: str) -> "subprocess.Popen[bytes]":
    key = (os.getpid(), kind)  # a forked process has none of its own yet
    child = _children.get(key)
    if child is None or child.poll() is not None:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        _children[key] = child
        atexit.register(_end, kind)
    return child


def _end(kind: str) -> None:
    child = _children.pop((os.getpid(), kind), None)
    if child is not None:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _limit() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _alarm() -> None:
    """Start a step: when it takes longer than STEP_S, the system ends this process, wherever it is."""
    import signal

    if hasattr(signal, "alarm"):
        signal.alarm(STEP_S)


def _serve(kind: str) -> None:
    from gptwright.corpus.readers import pdfpages

    read = {"pdf": pdfpages.read}[kind]
    _limit()
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        path = Path(json.loads(line)["path"])
        _alarm()
        try:
            for answer in read(path, _alarm):
                _write(out, answer)
            _write(out, {"end": True})
        except (NotText, Skip) as error:
            _write(out, {"fault": str(error), "skip": isinstance(error, Skip)})
        except (MemoryError, RecursionError) as error:
            _write(out, {"fault": f"it takes too much memory ({type(error).__name__})", "skip": False})
        except OSError as error:
            _write(out, {"fault": error.strerror or str(error), "skip": False})
        finally:
            import signal

            if hasattr(signal, "alarm"):
                signal.alarm(0)


def _write(out: IO[bytes], answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])

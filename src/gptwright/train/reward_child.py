"""The process of a reward function: limits itself, loads the user's file, then answers one JSON line with another. Standard library only."""

import contextlib
import ctypes
import importlib.util
import json
import math
import os
import sys


def limit(memory_bytes: int) -> bool:
    """Take away what a score does not need. Returns whether there is still a network."""
    network = True
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            new_user, new_network = 0x10000000, 0x40000000  # linux/sched.h: CLONE_NEWUSER, CLONE_NEWNET
            network = ctypes.CDLL(None, use_errno=True).unshare(new_user | new_network) != 0
    try:
        import resource
    except ImportError:  # Windows
        return network
    limits = {"RLIMIT_AS": memory_bytes, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0, "RLIMIT_NOFILE": 64}
    for name, value in limits.items():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))
    return network


def main() -> None:
    """Arguments: the user's file, bytes of memory."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)

    def reply(value: object) -> None:
        replies.write(json.dumps(value).encode() + b"\n")

    network = limit(int(sys.argv[2]))
    try:
        spec = importlib.util.spec_from_file_location("reward", sys.argv[1])
        assert spec is not None
        assert spec.loader is not None
        sys.dont_write_bytecode = True
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        score = module.score
    except BaseException as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        return
    reply({"network": network})
    for line in sys.stdin.buffer:
        try:
            given = json.loads(line)
            value = float(score(given["prompt"], given["answer"], given["row"]))
            reply({"score": value} if math.isfinite(value) else {"error": f"the score is {value}"})
        except BaseException as error:
            reply({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()

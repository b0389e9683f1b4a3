"""Which process of a launch this is. torchrun, Ray Train and a launch file of Slurm say it in the environment; without them there is one."""

import os

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def size() -> int:
    """Processes of the launch; 1 where nobody says otherwise."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _NEEDED) else 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", rank())) if size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes, records and prints."""
    return rank() == 0

"""Runs in several processes, each a job of a list: torchrun ... case_distributed.py OUT JOBS.json. Without torchrun it is one process.

A job: "case", "folder", "steps", "settings"; "rows" of a batch; "heldout": measured too; "shape": weights are drawn here; "watch": the rows
are kept; "poison": a loss is not a number; "stop", "kill", "freeze": [step, rank] of a signal; "limit": [bytes, rank], the size of files
there. Every process writes OUT/rank-N.json: what each job raised, what came of it, which rows it learnt from.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cases
import numpy as np
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import GptwrightError
from gptwright.train.data import Heldout
from gptwright.train.distributed import launched
from gptwright.train.loop import train
from gptwright.train.objectives import Objective

SETTINGS = {"checkpoint_every": 3, "dtype": "float32", "compile": "off", "log_every": 1, "peer_timeout": 30}


class Watched(Objective):
    """Next-token prediction that keeps what it was given to learn from."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def loss(self, model: Any, rows: Any, scale: float, kernels: Any) -> torch.Tensor:
        if scale != 0 and torch.is_grad_enabled():
            self.rows += rows.tokens.tolist()
        return super().loss(model, rows, scale, kernels)


class Poisoned(Objective):
    """Next-token prediction whose loss is not a number where a row begins with a certain token."""

    def loss(self, model: Any, rows: Any, scale: float, kernels: Any) -> torch.Tensor:
        loss = super().loss(model, rows, scale, kernels)
        return loss * float("nan") if scale and (rows.tokens[:, 0] == 20).any() else loss


class Signalling:
    """A plan that sends this process a signal when a step's batch is asked for."""

    def __init__(self, plan: Any, step: int, signal_number: int) -> None:
        self.plan, self.step, self.number = plan, step, signal_number
        self.key = plan.key

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)

    def batch(self, step: int) -> Any:
        if step == self.step:
            os.kill(os.getpid(), self.number)
        return self.plan.batch(step)


@contextmanager
def file_limit(size_bytes: int) -> Iterator[None]:
    """Files that grow beyond a size fail as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run(job: dict[str, Any], rank: int) -> dict[str, Any]:
    settings = {**SETTINGS, **job.get("settings", {})}
    case = cases.build(job["case"], **{"max_steps": job["steps"]} | settings)
    plan = TinyPlan(rows=job["rows"]) if "rows" in job else case.plan
    for kind, name in (("stop", "SIGTERM"), ("kill", "SIGKILL"), ("freeze", "SIGSTOP")):
        if kind in job and job[kind][1] == rank:
            plan = Signalling(plan, job[kind][0], getattr(signal, name))
    heldout = Heldout([TinyPlan(rows=3).batch(10**6)], np.ones(64, dtype=np.uint16)) if job.get("heldout") else None
    objective = Watched() if job.get("watch") else Poisoned() if job.get("poison") else case.objective
    model = tiny_config() if job.get("shape") else case.model
    limited = "limit" in job and job["limit"][1] == rank
    try:
        with file_limit(job["limit"][0]) if limited else nullcontext():
            result = train(model, plan, case.config, run_dir=Path(job["folder"]), objective=objective, heldout=heldout)
        found: dict[str, Any] = {"error": None, "bpb": result.heldout_bpb}
        if not any(p.is_meta for p in result.model.parameters()):
            found["weights"] = [float(p.detach().double().square().sum()) for p in result.model.parameters()]
    except GptwrightError as error:
        found = {"error": type(error).__name__, "text": str(error), "code": error.exit_code}
    return found | {"rows": getattr(objective, "rows", [])}


def main() -> None:
    torch.set_num_threads(1)
    rank = launched().rank
    out, found = Path(sys.argv[1]) / f"rank-{rank}.json", []
    for job in json.loads(Path(sys.argv[2]).read_text()):
        found.append(run(job, rank))
        out.write_text(json.dumps(found))
        if found[-1]["error"] == "PeerLost":
            sys.exit(found[-1]["code"])


if __name__ == "__main__":
    main()

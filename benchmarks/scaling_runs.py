"""Runs for the planner's law: small models on 0.5 to 4 million tokens, some of them read many times, and others to test it on.

    python benchmarks/scaling_runs.py PROJECT --set fit  --out runs.json
    python benchmarks/scaling_runs.py PROJECT --set test --out test.json

PROJECT is a folder whose tokens are made (``gptwright new starter; gptwright run tokens``). Each run is a process of its own, so that its peak
of memory is its own; a run that is in the file already is not made again. The law is fitted by ``python -m gptwright.plan.fit``. Beside these
runs, ``plan/runs.json`` has four pretrainings of the starter of 4 to 6 minutes each, which are marked there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SETS = {
    # parameters, tokens, and of how many different ones (0: all there are)
    "fit": [
        (0.35e6, 0.5e6, 0), (0.35e6, 1.5e6, 0), (0.35e6, 4e6, 0), (0.35e6, 2e6, 0.25e6), (0.7e6, 0.5e6, 0), (0.7e6, 2e6, 0),
        (0.7e6, 1.5e6, 0.19e6), (1.3e6, 0.5e6, 0), (0.35e6, 1e6, 0.25e6), (0.7e6, 0.8e6, 0.25e6), (1.3e6, 0.6e6, 0.2e6),
    ],
    "test": [(0.5e6, 1e6, 0), (0.9e6, 1.2e6, 0), (1.8e6, 0.8e6, 0), (3.5e6, 0.5e6, 0), (0.9e6, 0.8e6, 0.2e6),
             (0.9e6, 1.6e6, 0.4e6), (0.5e6, 2e6, 0.25e6)],
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """One run."""

    params: float
    tokens: float
    unique: float
    seed: int = 0

    @property
    def name(self) -> str:
        unique = f"-of-{self.unique / 1e6:g}M" if self.unique else ""
        return f"{self.params / 1e6:g}M-{self.tokens / 1e6:g}M{unique}" + (f"-seed{self.seed}" if self.seed else "")


def run(spec: Spec, root: Path, scratch: Path) -> dict[str, Any]:
    """Train one model, and say what came of it and what it took."""
    from gptwright.corpus.view import documents
    from gptwright.model.cost import embedding_params, params
    from gptwright.model.presets import modern
    from gptwright.plan.memory import peak_bytes
    from gptwright.plan.probe import cpu_name
    from gptwright.project.heldout import heldout
    from gptwright.project.project import Project
    from gptwright.tokens.plan import BatchPlan
    from gptwright.tokens.shards import TokenDataset, write_tokens
    from gptwright.tokens.tokenizer import Tokenizer
    from gptwright.train.config import TrainConfig
    from gptwright.train.dial import settings_for
    from gptwright.train.loop import train

    project = Project.open(root)
    tokenizer = Tokenizer.load(project.work / "tokenizer")
    with project.ledger() as ledger:
        made = ledger.latest_of_stage("tokens")
    assert made is not None, "run: gptwright run tokens"
    folder = root / made.path
    if spec.unique:
        share, taken = [], 0.0
        per_token = made.meta["bytes"] / made.meta["tokens"]
        for document in documents(project.work / "corpus", "train"):
            share.append(document)
            taken += len(document.text.encode()) / per_token
            if taken >= spec.unique:
                break
        folder = scratch / f"tokens-{spec.unique:g}"
        if not folder.exists():
            write_tokens(share, tokenizer, folder)
    dataset = TokenDataset.open(folder)
    seq_len = int(project.settings.model.seq_len)
    shape = modern(params=int(spec.params), vocab_size=tokenizer.padded_vocab_size, seq_len=seq_len)
    given = TrainConfig.model_validate({"max_steps": 1, "seed": spec.seed})
    config = settings_for(shape, given, tokens=spec.tokens, unique=dataset.n_tokens)
    rows = config.batch_tokens // seq_len
    steps = round(spec.tokens / config.batch_tokens)
    config = config.model_copy(update={"max_steps": steps})
    plan = BatchPlan(dataset, seq_len, rows, spec.seed)
    # The ids of the project's corpus stand for its stages here: only the held-out texts are asked for.
    job: Any = SimpleNamespace(project=project, inputs={"corpus": True})
    began, cpu = time.perf_counter(), time.process_time()
    result = train(shape, plan, config, run_dir=scratch / spec.name, heldout=heldout(job, tokenizer, seq_len, rows))
    return {
        "name": spec.name,
        "asked": spec.params,
        "params": params(shape),
        "embedding_params": embedding_params(shape),
        "n_layers": shape.n_layers,
        "d_model": shape.d_model,
        "vocab_size": shape.vocab_size,
        "seq_len": seq_len,
        "batch_tokens": config.batch_tokens,
        "steps": steps,
        "tokens": result.tokens,
        "unique_tokens": dataset.n_tokens,
        "bits_per_byte": result.heldout_bpb,
        "train_loss": result.final_loss,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_bytes": peak_bytes(),
        "rates": {name: getattr(config, name) for name in ("lr_matrix", "lr_embedding", "lr_other", "weight_decay")},
        "corpus": "the starter's conversations",
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--set", choices=sorted(SETS), default="fit")
    parser.add_argument("--out", type=Path, default=Path("runs.json"))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "gptwright-scaling")
    parser.add_argument("--part", default="1/1", help="make every n-th run only: 1/3, 2/3 and 3/3 are all of them")
    parser.add_argument("--lock", type=Path, help="wait for this lock before each run (flock)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(run(Spec(**json.loads(asked.one)), asked.project.resolve(), asked.scratch)))
        return
    done = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.is_file() else []
    part, parts = (int(number) for number in asked.part.split("/"))
    for spec in [Spec(*row) for row in SETS[asked.set]][part - 1 :: parts]:
        if any(row["name"] == spec.name for row in done):
            continue
        command = [
            sys.executable,
            __file__,
            str(asked.project),
            "--scratch",
            str(asked.scratch),
            "--one",
            json.dumps(asdict(spec)),
        ]
        locked = ["flock", str(asked.lock), *command] if asked.lock else command
        child = subprocess.run(locked, stdout=subprocess.PIPE, text=True, check=True)
        done.append(json.loads(child.stdout.splitlines()[-1]))
        asked.out.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(
            {name: done[-1][name] for name in ("name", "bits_per_byte", "seconds", "cpu_s", "peak_bytes")}, flush=True
        )


if __name__ == "__main__":
    main()

"""Where documents went: data sets that hold them, runs, steps and checkpoints that saw them, models and releases that came of those."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.files import read_json
from gptwright.core.ledger import Artifact, Ledger
from gptwright.tokens.shards import MANIFEST, TokenDataset
from gptwright.tokens.slots import recall_slots

if TYPE_CHECKING:
    from gptwright.project.project import Project

_CHAINED = re.compile(r"-step\d+$")  # run of a step of a chain that is not the last


@dataclass(frozen=True)
class Exposure:
    """What one run saw of the documents.

    Args:
        run: its id.
        stage: pretrain, finetune, refresh.
        known: whether the run kept its plan, so that the numbers below are exact; else it may have seen them.
        documents: how many of the documents it saw.
        exposures: steps that held any of them, counted once a document and step.
        first_step: first step that held one (from 0), None for none.
        steps: steps that the run took.
        exposed_checkpoints: names of checkpoints after that step.
        last_clean_checkpoint: the newest before it, None when there is none any more.
    """

    run: str
    stage: str
    known: bool
    documents: int
    exposures: int
    first_step: int | None
    steps: int
    exposed_checkpoints: list[str]
    last_clean_checkpoint: str | None


@dataclass
class Trace:
    """Where documents went."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    tokenizers: list[str] = field(default_factory=list)
    runs: list[Exposure] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    proxies: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        out = [f"{len(self.documents):,} document{'s' * (len(self.documents) != 1)}:"]
        for row in self.documents[:10]:
            out.append(f"  {row['source']}/{row['locator']}  (id {row['id'][:12]}) {row['verdict']}{row['because']}")
        if len(self.documents) > 10:
            out.append(f"  and {len(self.documents) - 10:,} more")
        out += [
            f"data set {row['path']}: {row['documents']:,} of them, {row['tokens']:,} tokens" for row in self.datasets
        ]
        out += [f"tokenizer {name}: was trained on them" for name in self.tokenizers]
        for run in self.runs:
            if not run.known:
                out.append(f"run {run.run} ({run.stage}): kept no plan; it may have seen them")
            elif run.first_step is None:
                out.append(f"run {run.run} ({run.stage}): saw none of them in {run.steps:,} steps")
            else:
                clean = run.last_clean_checkpoint or "none is left"
                out.append(
                    f"run {run.run} ({run.stage}): saw {run.documents:,} of them, {run.exposures:,} times, first in step "
                    f"{run.first_step:,} of {run.steps:,}; last clean checkpoint: {clean}"
                )
        out += [f"{folder}: weights of a stopped sweep, which may have seen them" for folder in self.proxies]
        out += [f"model {name}: descends from a run that saw them" for name in self.models]
        out += [
            f"release {row['id']} ({row['model']}){': ' + ', '.join(row['aliases']) if row['aliases'] else ''}"
            for row in self.releases
        ]
        return out


def trace(
    project: "Project",
    documents: Sequence[dict[str, Any]],
    ledger: Ledger,
    norms: Mapping[str, str] | None = None,
) -> Trace:
    """Follow documents through data sets, runs, models and releases. Reads only.

    Args:
        project: the project.
        documents: rows with ``id`` (32 hex digits), ``source``, ``locator``, ``verdict``, ``because``.
        ledger: the project's.
        norms: norm_id of each document, by its id: examples of fine-tuning that hold the text are found by it.
    """
    found = Trace(list(documents))
    uids = [row["id"] for row in documents]
    found.datasets = datasets_with(project, uids)
    exposed: set[str] = set()
    for run in ledger.runs():
        folder = project.work / "runs" / run.id
        if (folder / "config.json").is_file() and (
            seen := _exposure(project, run.id, run.stage, folder, uids, norms or {})
        ):
            found.runs.append(seen)
            if not seen.known or seen.first_step is not None:
                exposed |= {run.id, _CHAINED.sub("", run.id)}  # a chain's model bears the id of its last step
    found.proxies = [folder.relative_to(project.root).as_posix() for folder in proxies_left(project.work)]
    everything = ledger.artifacts()
    tainted = {a.id for a in everything if a.run_id in exposed and a.kind == "model"}
    if any(row["verdict"] == "kept for training" for row in documents):
        found.tokenizers = [a.name for a in everything if a.kind == "tokenizer"][-1:]
    models: list[Artifact] = []
    for artifact in everything:
        if artifact.kind == "model" and (
            artifact.id in tainted or tainted & {a.id for a in ledger.ancestors(artifact.id)}
        ):
            tainted.add(artifact.id)
            models.append(artifact)
    found.models = list(dict.fromkeys(a.name for a in models))
    found.releases = _releases(project, {a.hash for a in models})
    return found


def datasets_with(project: "Project", uids: Collection[str]) -> list[dict[str, Any]]:
    """Token data sets in ``work/tokens`` that hold any of the documents."""
    rows = []
    for manifest in sorted((project.work / "tokens").glob(f"*/{MANIFEST}")):
        with TokenDataset.open(manifest.parent, verify=False) as dataset:
            places = [index for uid in uids for index in dataset.find(uid)]
            tokens = sum(int(dataset.starts[i + 1] - dataset.starts[i]) for i in places)
        if places:
            path = manifest.parent.relative_to(project.root).as_posix()
            rows.append({"path": path, "documents": len(places), "tokens": tokens})
    return rows


def proxies_left(work: Path) -> list[Path]:
    """Folders of proxies, with weights, of sweeps that were stopped and did not go on."""
    return [folder for folder in sorted((work / "runs").glob("*/proxies")) if any(folder.iterdir())]


def _exposure(
    project: "Project", run: str, stage: str, folder: Path, uids: Sequence[str], norms: Mapping[str, str]
) -> Exposure | None:
    """What a run saw; None for a run that took no step."""
    checkpoints = {path.name: int(read_json(path / "state.json")["step"]) for path in _checkpoints(folder)}
    result = read_json(folder / "result.json") if (folder / "result.json").is_file() else {}
    steps = max([int(result.get("steps", 0)), *checkpoints.values()], default=0)
    if steps == 0:
        return None
    slots = recall_slots(folder, project.root)
    if slots is None:
        return Exposure(run, stage, False, 0, 0, None, steps, sorted(checkpoints), None)
    seen = []
    for uid in uids:
        keys = (uid, norms[uid]) if uid in norms else (uid,)
        if held := sorted({step for key in keys for step in slots.steps_of(key, steps)}):
            seen.append(held)
    first = min((held[0] for held in seen), default=None)
    clean = {name: step for name, step in checkpoints.items() if first is None or step <= first}
    return Exposure(
        run,
        stage,
        True,
        len(seen),
        sum(map(len, seen)),
        first,
        steps,
        sorted(checkpoints.keys() - clean.keys()),
        max(clean, key=lambda name: clean[name], default=None),
    )


def _checkpoints(folder: Path) -> list[Path]:
    return [path.parent for path in sorted((folder / "checkpoints").glob("*/state.json"))]


def _releases(project: "Project", model_hashes: Collection[str]) -> list[dict[str, Any]]:
    from gptwright.core.control import Alias, Release

    if not (project.state / "control.sqlite").exists() and not project.settings.serve.database_url:
        return []
    with project.control.session() as session:
        aliases: dict[int, list[str]] = {}
        for alias in session.query(Alias).order_by(Alias.name):
            aliases.setdefault(alias.release_id, []).append(alias.name)
        return [
            {"id": release.id, "model": release.model_id, "aliases": aliases.get(release.id, [])}
            for release in session.query(Release).order_by(Release.id)
            if release.model_hash in model_hashes
        ]

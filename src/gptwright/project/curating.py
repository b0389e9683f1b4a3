"""What a person does with the corpus beside building it: gather again, report, try thresholds, label, hand it to others."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.lock import stage_lock
from gptwright.core.progress import say
from gptwright.project.stages import weights_of

if TYPE_CHECKING:
    from gptwright.corpus.quality.desk import Desk
    from gptwright.corpus.whatif import Change
    from gptwright.project.project import Project


def gather(project: "Project") -> list[str]:
    """Ask every source that lies elsewhere for what changed. Returns their names."""
    from gptwright.corpus.sources.kinds import gather_sources

    with stage_lock(project.work, "data build"):
        names = []
        for name in gather_sources(project.settings.corpus, project.root, again=True):
            say(f"corpus: {name} is gathered")
            names.append(name)
        return names


def write_report(project: "Project", *, show: bool = False) -> Path:
    """Write ``work/reports/data.html``, and open it in the browser if asked."""
    from gptwright.corpus.report import page

    corpus = project.work / "corpus"
    with project.ledger() as ledger:
        tokens = ledger.latest_of_stage("tokens")
        runs = [a for a in ledger.artifacts("model") if a.meta.get("pretrained")]
        ratio = tokens.meta["bytes"] / max(tokens.meta["tokens"], 1) if tokens else 4.0
        seen = int(runs[-1].meta["tokens"]) if runs else None
        path = page.write(
            corpus, ledger, project.work / "reports" / "data.html", title=project.settings.project.name,
            mix=project.settings.corpus.mix, weights=weights_of(project), tokens=seen, bytes_per_token=ratio,
        )  # fmt: skip
    if show:
        webbrowser.open(path.resolve().as_uri())
    return path


def rule_changes(given: Sequence[str]) -> dict[str, float | None]:
    """``RULE=VALUE`` texts as thresholds; ``off`` switches a rule off.

    Raises:
        UserError: one is not of this form.
    """
    changes: dict[str, float | None] = {}
    for text in given:
        rule, mark, value = text.partition("=")
        try:
            changes[rule.strip()] = None if value.strip() == "off" else float(value)
        except ValueError as error:
            raise UserError(f"not RULE=NUMBER or RULE=off: {text}", where="--set") from error
        if not mark:
            raise UserError(f"not RULE=NUMBER or RULE=off: {text}", where="--set")
    if not changes:
        raise UserError("no rule is changed", fix="Give one: gptwright data what-if --set text.too_short=40")
    return changes


def what_if(project: "Project", changes: dict[str, float | None]) -> "Change":
    """Decide the built corpus anew with other thresholds; writes nothing."""
    from gptwright.corpus.whatif import what_if as decide_anew

    return decide_anew(project.work / "corpus", changes)


def desk(project: "Project", task: str, target: int) -> "Desk":
    """Documents that are worth a label, with what was labelled before."""
    from gptwright.corpus.quality import labels, load
    from gptwright.corpus.quality.desk import Desk, pick

    folder = _folder(project, task)
    model = load(folder) if (folder / "model.json").is_file() else None
    done = labels.latest(project.control, task)
    sheets = pick(project.work / "corpus", target, done=list(done), model=model)
    return Desk(project.control, sheets, task=task, target=target)


def train_classifier(
    project: "Project", task: str, *, examples: Path | None = None, sources: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Train a classifier from the labels, when there are enough.

    Args:
        project: the project.
        task: "quality" or "toxicity".
        examples: a file of labelled texts, instead of the labels given here.
        sources: names of a good and a bad source, instead.
    """
    from gptwright.corpus.quality import labels

    corpus = project.work / "corpus"
    if examples is not None:
        found = labels.read_examples(examples, task)
    elif sources is not None:
        found = labels.of_sources(corpus, *sources)
    else:
        found = labels.labelled(project.control, corpus, task)
    return _train(project, task, found, _folder(project, task))


def _folder(project: "Project", task: str) -> Path:
    return project.state / "models" / task


def _train(project: "Project", task: str, found: Any, folder: Path) -> dict[str, Any]:
    from gptwright.corpus.quality import train

    positive = sum(map(bool, found.labels))
    counts = {"task": task, "labels": len(found.labels), "positive": positive}
    least = min(positive, len(found.labels) - positive)
    if least < 10:
        return {
            **counts,
            "trained": False,
            "lines": [f"{len(found.labels)} labels, {least} in the smaller class; a classifier needs 10 of each"],
        }
    model = train(found.texts, found.labels, groups=found.groups, out=folder, task=task, measured_on=found.measured_on)
    place = folder.relative_to(project.root).as_posix()
    use = [
        "To score documents by it, write into gptwright.toml under [corpus.quality]:",
        f'  models = {{ {task} = "{place}" }}',
    ]
    return {**counts, "trained": True, "model": place, "hash": model.hash, "lines": [*model.report.lines(), *use]}


def export(project: "Project", out: Path, format: str, split: str | None) -> dict[str, Any]:
    """Write the corpus as others read it. See ``corpus.interop``."""
    from gptwright.corpus.interop import export as write

    done = write(project.work / "corpus", out, format, split, name=project.settings.project.name)  # type: ignore[arg-type]
    return {"folder": str(out), "files": list(done.files), "documents": done.documents, "bytes": done.bytes}


def review_licence(
    project: "Project", source: str, scope: str, license: str | None, attribution: str | None, note: str | None
) -> dict[str, Any]:
    """Keep a person's decision about the licence of texts; the next build applies it."""
    from gptwright.corpus.licences.review import decide

    if source not in project.settings.corpus.sources:
        raise UserError(f"no source is named {source}", fix=f"Name one of {', '.join(project.settings.corpus.sources)}")
    return dict(vars(decide(project.control, source, scope, license, attribution=attribution, note=note)))

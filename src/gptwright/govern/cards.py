"""Model card, dataset card and attribution, compiled from what the ledger knows. What it does not know is listed once, at the top, by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, write_json
from gptwright.core.ledger import Artifact, Evaluation, Ledger, SourceRow
from gptwright.govern.applicability import NOTICE, Applicability, applicability, original
from gptwright.govern.policy import UNKNOWN, Finding, Intent, Review, check, meaning, source_sizes, terms_of

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)
_DATA_KINDS = ("corpus", "dataset")


@dataclass
class _Facts:
    """Everything the cards say, gathered once."""

    model: Artifact
    shape: dict[str, Any]
    data: Artifact | None
    ancestors: list[Artifact]
    sources: list[SourceRow]
    review: Review
    evaluations: list[Evaluation]
    applicability: Applicability
    documents: dict[str, int]
    unreadable: dict[str, int]
    unknown: list[str] = field(default_factory=list)


@dataclass
class _Sources:
    """The texts a model was trained on: their terms, and by name their bytes, documents and files that could not be read."""

    rows: list[SourceRow] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)


def write_cards(root: Path, ledger: Ledger, out: Path, intent: Intent, model_id: str | None = None) -> list[Path]:
    """Write README.md (the model card), DATASET_CARD.md, ATTRIBUTION.md and applicability.json.

    Args:
        root: the project.
        ledger: of the project.
        out: folder for the documents.
        intent: of the project; a source that does not fit it is refused before anything is written.
        model_id: default the newest model.

    Returns:
        The files written.

    Raises:
        Refused: a source does not fit the intent.
        UserError: there is no model yet, or none of that name.
    """
    facts = _gather(root, ledger, intent, model_id)
    texts = {
        "README.md": _model_card(facts),
        "DATASET_CARD.md": _dataset_card(facts),
        "ATTRIBUTION.md": attribution(facts.sources, facts.review),
    }
    written = []
    for name, text in texts.items():
        with atomic_write(out / name, "w") as file:
            file.write(text)
        written.append(out / name)
    write_json(out / "applicability.json", facts.applicability.to_json())
    return [*written, out / "applicability.json"]


def model_card(root: Path, ledger: Ledger, intent: Intent, model_id: str | None = None) -> str:
    """The model card alone, for the README.md of a model directory."""
    return _model_card(_gather(root, ledger, intent, model_id))


def attribution(sources: Sequence[SourceRow], review: Review) -> str:
    """Who is to be named and what is asked, grouped by licence."""
    rows = {source.name: source for source in sources}
    lines = ["# Attribution", "", "This model was trained on the texts below. Each is under its own licence.", ""]
    groups: dict[str, list[Finding]] = {}
    for finding in review.findings:
        groups.setdefault(finding.license or "Licence not known", []).append(finding)
    for license, findings in sorted(groups.items()):
        asked = sorted({o for finding in findings for o in finding.obligations})
        lines += [f"## {license}", ""]
        lines += [f"Asks: {'; '.join(meaning(o) for o in asked)}." if asked else "Asks nothing.", ""]
        for finding in findings:
            source = rows[finding.source]
            credit = f" {_line(source.attribution)}" if source.attribution else ""
            lines.append(
                f"- **{source.name}** ({_link(source.uri)}).{credit} {finding.share:.1%} of the text; licence from {source.license_source}."
            )
        lines.append("")
    lines += [
        "Changes: text was extracted, cleaned, deduplicated and split into tokens; the model holds no copy by design, though it may repeat parts.",
        "",
        f"Obligations as of {review.table_date}. Not legal advice.",
        "",
    ]
    return "\n".join(lines)


def _gather(root: Path, ledger: Ledger, intent: Intent, model_id: str | None) -> _Facts:
    model = ledger.find("model", model_id) if model_id else ledger.latest("model")
    if model is None:
        raise UserError(f"no model {model_id}" if model_id else "no model yet", fix="Run: gptwright run")
    model = original(ledger, model)
    ancestors = ledger.ancestors(model.id)
    data = [a for a in ancestors if a.kind in _DATA_KINDS]
    tuned = [a for a in (*ancestors, model) if a.kind == "model" and a.meta.get("sources")]
    seen = _sources_then([*data, *tuned]) or _sources_now(ledger)
    latest = {(e.suite, e.metric): e for e in ledger.evaluations(model.name) if e.model_hash == model.hash}
    facts = _Facts(
        model, _shape(root / model.path), data[-1] if data else None, ancestors, seen.rows,
        check(seen.rows, intent, seen.sizes), list(latest.values()), applicability(ledger, model), seen.documents, seen.unreadable,
    )  # fmt: skip
    facts.unknown = _unknown(facts)
    return facts


def _sources_then(datasets: Sequence[Artifact]) -> _Sources | None:
    """The sources as they were in all datasets that a model descends from: what is removed from the project later is in it still."""
    seen = _Sources()
    for dataset in reversed(datasets):
        then = terms_of(dataset.meta.get("sources", {}))
        for row in then.rows:
            kept = dataset.meta["sources"][row.name.partition(" [")[0]]
            size, documents = then.sizes[row.name], then.documents[row.name]
            if any(other.name == row.name and other != row for other in seen.rows):
                row = replace(row, name=f"{row.name} ({dataset.name})")  # other text or other terms under the same name
            if row not in seen.rows:
                seen.rows.append(row)
            # What two datasets share is counted once.
            for counts, count in (
                (seen.sizes, size),
                (seen.documents, documents),
                (seen.unreadable, kept["files"].get("unreadable", 0)),
            ):
                counts[row.name] = max(int(count), counts.get(row.name, 0))
    return seen if seen.rows else None


def _sources_now(ledger: Ledger) -> _Sources:
    """The project's sources of today, for a model whose data is not in the record."""
    seen = _Sources(ledger.sources(), source_sizes(ledger))
    for file in ledger.files():
        seen.documents[file.source] = seen.documents.get(file.source, 0) + file.documents
        seen.unreadable[file.source] = seen.unreadable.get(file.source, 0) + (file.outcome == "unreadable")
    return seen


def _shape(folder: Path) -> dict[str, Any]:
    from gptwright.model import cost, io

    try:
        config = io.read_config(folder)
    except UserError:
        return {}
    return {
        "family": config.family, "parameters": cost.params(config), "layers": config.n_layers, "width": config.d_model,
        "vocabulary": config.vocab_size, "context (tokens)": config.seq_len,
    }  # fmt: skip


def _unknown(facts: _Facts) -> list[str]:
    lacking = []
    if not facts.model.meta.get("license"):
        lacking.append("licence of the model")
    if not facts.model.meta.get("language"):
        lacking.append("language")
    if not facts.shape:
        lacking.append("architecture")
    if not facts.evaluations:
        lacking.append("evaluation results")
    if facts.data is None:
        lacking.append("training data")
    for finding in facts.review.findings:
        if UNKNOWN in finding.obligations:
            lacking.append(f"licence of source {finding.source}")
    lacking += [
        f"whether source {s.name} holds personal data" for s in facts.sources if s.contains_personal_data == UNKNOWN
    ]
    lacking += [f"licence of the fine-tuning data {place}" for place, source in _tuning_data(facts) if source is None]
    if facts.applicability.not_recorded:
        lacking.append(f"training compute of {', '.join(facts.applicability.not_recorded)}")
    if facts.applicability.imported_base:
        lacking.append(f"training data of the base model {facts.applicability.imported_base}")
    return lacking


def _front(values: dict[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if value not in (None, [], {})}
    return "---\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True) + "---\n\n"


def _unknown_lines(unknown: Sequence[str]) -> list[str]:
    return [f"> Not known: {'; '.join(unknown)}.", ""] if unknown else []


def _model_card(facts: _Facts) -> str:
    model, shape = facts.model, facts.shape
    bases = [a for a in facts.ancestors if a.kind == "model" and not a.meta.get("passed_through")]
    front = {
        "license": str(model.meta["license"]).lower() if model.meta.get("license") else None,
        "language": model.meta.get("language"),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gptwright"],
        "base_model": facts.applicability.imported_base,
        "model-index": [{"name": model.name, "results": [_result(e) for e in facts.evaluations]}]
        if facts.evaluations
        else None,
    }
    lines = [f"# {model.name}", "", *_unknown_lines(facts.unknown)]
    lines += [f"Made with gptwright for {facts.review.intent} use. Hash `{model.hash}`.", ""]
    lines += ["## Model", "", *_table(("", ""), [(key, _number(value)) for key, value in shape.items()])]
    lines += ["## Training", ""]
    rows = [(run.stage, run.run_id, f"{run.tokens:,}", f"{run.flop:.3g}") for run in facts.applicability.runs]
    lines += _table(("stage", "run", "tokens", "FLOP"), rows)
    if bases:
        lines += ["Descends from: " + ", ".join(f"{a.name} (`{a.hash}`)" for a in bases) + ".", ""]
    lines += ["## Data", ""]
    lines += _source_table(facts)
    lines += ["## Evaluation", ""]
    lines += _table(
        ("suite", "metric", "value", "95 % interval", "n", "unit"),
        [
            (
                e.suite,
                e.metric,
                f"{e.value:.4f}",
                "" if e.low is None or e.high is None else f"{e.low:.4f} to {e.high:.4f}",
                str(e.n or ""),
                e.unit,
            )
            for e in facts.evaluations
        ],
    )
    lines += ["## Limits", "", _limits(facts), ""]
    lines += [
        "## Rules that may apply",
        "",
        *[f"- {statement}" for statement in facts.applicability.statements],
        "",
        NOTICE,
        "",
    ]
    return _front(front) + "\n".join(lines)


def _dataset_card(facts: _Facts) -> str:
    licenses = sorted({finding.license for finding in facts.review.findings if finding.license})
    count = sum(facts.documents.values())
    front = {
        "license": licenses[0].lower() if len(licenses) == 1 else "other" if licenses else None,
        "pretty_name": facts.data.name if facts.data else None,
        "size_categories": [next((name for limit, name in _SIZES if count < limit), "100M<n<1B")] if count else None,
        "task_categories": ["text-generation"],
    }
    name = facts.data.name if facts.data else "Training data"
    unknown = [item for item in facts.unknown if "source" in item or "fine-tuning data" in item]
    lines = [f"# {name}", "", *_unknown_lines(unknown)]
    if facts.data:
        lines += [f"Hash `{facts.data.hash}`.", ""]
        numbers = [
            (key, _number(value))
            for key, value in facts.data.meta.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        lines += _table(("", ""), numbers)
    lines += ["## Sources", "", *_source_table(facts)]
    lines += ["## Personal data", ""]
    lines += _table(
        ("source", "holds personal data", "treatment"),
        [(s.name, s.contains_personal_data, s.pii) for s in facts.sources],
    )
    if tuned := _tuning_data(facts):
        lines += ["## Fine-tuning data", ""]
        lines += _table(
            ("file or folder", "licence"),
            [(f"`{place}`", f"that of source {source}" if source else "not known") for place, source in tuned],
        )
    if overridden := _overridden(facts):
        lines += ["## Opt-outs that were overridden", "", *overridden, ""]
    if facts.review.warnings:
        lines += ["## Licences: to know", "", *[f"- {warning}" for warning in facts.review.warnings], ""]
    return _front(front) + "\n".join(lines)


def _tuning_data(facts: _Facts) -> list[tuple[str, str | None]]:
    """Files that fine-tuning read beside the corpus, each with the source that it lies in; what lies in none has no licence on record."""
    found: dict[str, str | None] = {}
    for model in (a for a in (*facts.ancestors, facts.model) if a.kind == "model" and not a.meta.get("passed_through")):
        if model.meta.get("sources"):  # then they are among the sources, with their licence
            continue
        config = (model.meta.get("made_from") or {}).get("config", {})
        steps = [step.get("data") for step in config.get("finetune.steps") or [] if isinstance(step, dict)]
        for place in (config.get("finetune.data"), *steps):
            if place:
                inside = (s for s in facts.sources if s.kind == "folder" and Path(place).is_relative_to(s.uri))
                found[str(place)] = next((source.name for source in inside), None)
    return list(found.items())


def _overridden(facts: _Facts) -> list[str]:
    """Sources whose publishers' opt-outs were not followed, with the reason that was given and how many pages asked for what."""
    found: dict[str, None] = {}
    for dataset in (a for a in facts.ancestors if a.kind in _DATA_KINDS):
        for name, source in dataset.meta.get("sources", {}).items():
            if reason := source.get("consent_override"):
                seen = (source.get("about") or {}).get("opt_outs") or {}
                counted = ", ".join(f"{kind} {count:,}" for kind, count in seen.items())
                found[f"- {name}{f' (opt-outs: {counted})' if counted else ''}: {_line(reason)}"] = None
    return list(found)


def _source_table(facts: _Facts) -> list[str]:
    rows = {source.name: source for source in facts.sources}
    return _table(
        ("source", "kind", "from", "licence", "licence known from", "documents", "unreadable files", "share of text"),
        [
            (
                f.source, rows[f.source].kind, _link(rows[f.source].uri), f.license or "not known", rows[f.source].license_source,
                f"{facts.documents.get(f.source, 0):,}", f"{facts.unreadable.get(f.source, 0):,}", f"{f.share:.1%}",
            )
            for f in facts.review.findings
        ],
    )  # fmt: skip


def _limits(facts: _Facts) -> str:
    size = facts.shape.get("parameters")
    small = f"With {_number(size)} parameters it is a small model: it" if size and size < 1e9 else "It"
    return f"{small} can be wrong, invent facts and repeat what its training text says, prejudice included. Do not rely on it where that does harm."


def _result(row: Evaluation) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": row.suite, "type": row.suite},
        "metrics": [
            {
                "type": row.metric,
                "value": round(row.value, 4),
                "name": f"{row.metric} ({row.unit})" if row.unit else row.metric,
            }
        ],
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["Nothing recorded.", ""]
    cells = [[_line(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *["| " + " | ".join(row) + " |" for row in cells],
        "",
    ]


def _link(uri: str) -> str:
    return f"<{uri}>" if uri.startswith(("http://", "https://")) else f"`{uri}`"


def _line(text: str) -> str:
    """Text of others on one line, so that it cannot open a heading or a table of its own."""
    return " ".join(text.split())


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)

"""The sections of the page, each a function from facts to markup; a section without facts is empty and left out."""

from collections import Counter
from dataclasses import dataclass

from gptwright.core.ledger import Ledger
from gptwright.corpus.evidence import DESCRIPTIONS
from gptwright.corpus.mix import SourceMix
from gptwright.corpus.report.collect import Facts, rules_in_order, total
from gptwright.corpus.report.markup import (
    SIGNS,
    Markup,
    amount,
    bar,
    esc,
    histogram,
    join,
    name,
    number,
    share,
    size,
    table,
)

HOST_SHARE = 0.2  # one site with more than this of the text from the web is told
UNKNOWN_SHARE = 0.1  # and so is this much text without a licence
# Muennighoff et al., "Scaling Data-Constrained Language Models", 2023: up to four passes are worth nearly as much as new text.
MANY_EPOCHS = 4.0
TOP = 20  # rows of a long table


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    body: Markup


def warnings(facts: Facts, mixed: list[SourceMix], tokens: int | None) -> list[str]:
    """What a person should look at before training."""
    found = list(facts.alarms)
    meta = facts.manifest["meta"]
    for source, of in facts.sources.items():
        if of["read"] and not of["kept"]:
            found.append(f"nothing of {source} is kept")
        if sum(of["pii"].values()) and meta["sources"].get(source, {}).get("pii_policy") == "keep":
            found.append(
                f"{source}: {sum(of['pii'].values()):,} pieces of personal data stay in the text (policy: keep)"
            )
    unknown = sum(row.bytes for row in facts.licences if row.name == "not known")
    if unknown > UNKNOWN_SHARE * max(facts.kept.bytes, 1):
        found.append(f"no licence is known for {share(unknown, facts.kept.bytes)} of the text")
    if facts.hosts and facts.hosts[0].bytes > HOST_SHARE * facts.hosted.bytes and len(facts.hosts) > 1:
        top = facts.hosts[0]
        found.append(f"{top.name} alone is {share(top.bytes, facts.hosted.bytes)} of the text from the web")
    often = [row for row in mixed if row.epochs > MANY_EPOCHS] if tokens is not None else []
    if often:
        listed = ", ".join(f"{row.source} {row.epochs:.1f} times" for row in often[:6]) + (
            " and others" if len(often) > 6 else ""
        )
        found.append(f"training shows {listed}; beyond about {MANY_EPOCHS:.0f} times a text teaches little new")
    return found


def remarks(facts: Facts) -> list[str]:
    """What else the build had to say."""
    return [note for note in facts.manifest["meta"].get("notes", []) if note not in facts.alarms]


def _described(facts: Facts, rule: str) -> Markup:
    own = next((r.description for r in facts.recipe.rules if r.id == rule), "")
    return join([name(rule), Markup(f'<span class="sub">{esc(own or DESCRIPTIONS.get(rule, ""))}</span>')])


def funnel(facts: Facts) -> Markup:
    """Rule by rule: what goes, what is left."""
    read, read_bytes = total(facts, "read"), total(facts, "bytes_read")
    left, rows = read_bytes, []
    per = facts.bytes_per_token
    rows.append(["read", "", f"{read:,}", amount(read_bytes, per), "", bar(("r", 1.0))])
    for rule in rules_in_order(facts):
        dropped, lost = total(facts, "dropped", rule), total(facts, "dropped_bytes", rule)
        left -= lost
        rows.append(
            [
                _described(facts, rule),
                f"{total(facts, 'failed', rule):,}",
                f"−{dropped:,}" if dropped else "0",
                amount(lost, per, "−") if lost else "0",
                share(lost, read_bytes),
                bar(("r", left / max(read_bytes, 1)), ("d", lost / max(read_bytes, 1))),
            ]
        )
    kept = facts.kept
    rows.append(
        [
            "kept",
            "",
            f"{kept.documents:,}",
            amount(kept.bytes, per),
            share(kept.bytes, read_bytes),
            bar(("k", kept.bytes / max(read_bytes, 1))),
        ]
    )
    return join(
        [
            Markup(
                '<p class="note">Every rule is asked of every document: “fail” counts all that fail it, “dropped” those that no rule above it'
                f" had dropped yet. A token counts as {per:.2f} bytes."
                ' <span class="key r"></span>still there <span class="key d"></span>dropped here</p>'
            ),
            table(
                "Documents and text, rule by rule",
                ["rule", "fail", "dropped", "text", "of all", "flow"],
                rows,
                numeric=(1, 2, 3, 4),
                total=True,
            ),
        ]
    )


def sources(facts: Facts) -> Markup:
    """Source by source, and each source's rules."""
    meta, rows, more = facts.manifest["meta"]["sources"], [], []
    for source, of in facts.sources.items():
        said = meta.get(source, {})
        worst = max(of["failed_bytes"].items(), key=lambda one: (one[1], one[0]), default=None)
        kind = f"{said.get('kind', '')}, {said.get('license') or 'licence not known'}"
        rows.append(
            [
                join([name(source), Markup(f'<span class="sub">{esc(kind)}</span>')]),
                f"{of['read']:,}",
                f"{of['kept']:,}",
                amount(of["bytes"], facts.bytes_per_token),
                join([share(of["bytes"], of["bytes_read"]), bar(("k", of["bytes"] / max(of["bytes_read"], 1)))]),
                size(of["heldout"]["bytes"]),
                Markup(f'<span class="wide">{name(worst[0])} {esc(share(worst[1], of["bytes_read"]))}</span>')
                if worst
                else "none",
            ]
        )
        inner = [
            [
                _described(facts, rule),
                f"{of['failed'][rule]:,}",
                share(of["failed"][rule], of["read"]),
                size(of["failed_bytes"][rule]),
                share(of["failed_bytes"][rule], of["bytes_read"]),
                f"{of['dropped'].get(rule, 0):,}",
            ]
            for rule in rules_in_order(facts)
            if of["failed"].get(rule)
        ]
        if inner:
            head = ["rule", "documents fail", "share", "text fails", "share", "dropped first by it"]
            shown = table(f"Rules in {source}", head, inner, numeric=(1, 2, 3, 4, 5))
            more.append(
                Markup(
                    f'<details><summary>{name(source)}<span class="sub">{sum(of["dropped"].values()):,} of {of["read"]:,} documents dropped</span>'
                    f"</summary>{shown}</details>"
                )
            )
    head = ["source", "read", "kept", "text", "share of text", "held out", "most by"]
    parts: list[object] = [table("Source by source", head, rows, numeric=(1, 2, 3, 5))]
    if more:
        parts += [Markup("<h3>Rules by source</h3>"), Markup(f'<div class="card">{join(more)}</div>')]
    return join(parts)


def signals(facts: Facts) -> Markup:
    """Histograms with their thresholds."""
    figures = []
    for measure in facts.measures:
        rule = measure.rule
        also = f"; {measure.languages} languages have a threshold of their own" if measure.languages else ""
        told = f"{measure.failed:,} of {measure.n:,} fail; median {number(measure.median)}{also}"
        figures.append(
            Markup(
                f'<figure class="card"><figcaption><span class="id">{esc(rule.id)}</span>{esc(rule.description)}'
                f'<span class="sub">{esc(told)}</span></figcaption>{histogram(measure)}</figure>'
            )
        )
    if not figures:
        return Markup("")
    return join(
        [
            Markup(
                '<p class="note">How each measured signal is spread over the documents that its rule looks at. The dashed line is the threshold;'
                ' heights go by the square root of the number of documents, so that few are seen beside many. <span class="key k"></span>passes'
                ' <span class="key d"></span>fails</p>'
            ),
            Markup(f'<div class="figures">{join(figures)}</div>'),
        ]
    )


def boundary(facts: Facts) -> Markup:
    """Documents nearest to the thresholds, on both sides."""
    blocks: list[Markup] = []
    for rule, of in facts.samples.items():
        if not of:
            continue
        rows = []
        for one in of:
            verdict = "kept" if one.kept else "dropped" if one.fails else "dropped by another rule"
            rows.append(
                Markup(
                    f'<li{"" if one.kept else " class=d"}><p class="where"><b>{esc(number(one.value))}</b> · {"fails" if one.fails else "passes"},'
                    f" {verdict} · {name(f'{one.source}/{one.locator}')} · id {name(one.uid[:12])}</p>"
                    f'<p class="text"><bdi>{esc(one.text)}</bdi></p></li>'
                )
            )
        own = facts.recipe.rule(rule)
        told = f"dropped when {own.signal} {SIGNS[own.op]} {number(own.threshold)}"
        opened = " open" if not blocks else ""
        blocks.append(
            Markup(
                f'<details{opened}><summary>{name(rule)}<span class="sub">{esc(told)}</span></summary><ul class="samples">{join(rows)}</ul></details>'
            )
        )
    if not blocks:
        return Markup("")
    return join(
        [
            Markup(
                '<p class="note">The documents that lie nearest to the thresholds of the rules that drop most: if those on the wrong side read well,'
                " move the threshold. Personal data is masked.</p>"
            ),
            Markup(f'<div class="card">{join(blocks)}</div>'),
        ]
    )


def mix(rows: list[SourceMix], tokens: int | None) -> Markup:
    """How often each source is shown."""
    shown = [
        [
            name(row.source),
            f"{row.documents:,}",
            size(row.bytes),
            f"{row.weight:g}",
            f"{row.repeats:.2f}" + (" (capped)" if row.capped else ""),
            join([f"{share(row.share, 1)} → {share(row.shown_share, 1)}", bar(("k", row.shown_share))]),
            f"{row.epochs:.2f}",
        ]
        for row in rows
    ]
    over = f"over {tokens:,} tokens of training" if tokens is not None else "in one pass over the mix"
    head = [
        "source",
        "documents",
        "text",
        "weight",
        "shown per pass",
        "share of text → of what is shown",
        "effective epochs",
    ]
    return join(
        [
            Markup(
                f'<p class="note">Of the training part. Effective epochs: how often a text of the source is shown {esc(over)}.</p>'
            ),
            table("The mix, source by source", head, shown, numeric=(1, 2, 3, 4, 6)),
        ]
    )


def outcomes(ledger: Ledger | None) -> Markup:
    """What became of the files."""
    if ledger is None or not (found := ledger.files()):
        return Markup("")
    counts = Counter((file.source, file.outcome) for file in found)
    kinds = sorted({file.outcome for file in found}, key=lambda kind: (kind != "ok", kind))
    names = list(dict.fromkeys(file.source for file in found))
    rows = [[name(source), *(f"{counts[(source, kind)]:,}" for kind in kinds)] for source in names]
    bad = [file for file in found if file.outcome != "ok"]
    listed = [[name(f"{file.source}/{file.locator}"), file.outcome, file.reason or ""] for file in bad[:TOP]]
    if len(bad) > TOP:
        listed.append([f"{len(bad) - TOP:,} more", "", ""])
    parts: list[object] = [
        table("Outcomes of files by source", ["source", *kinds], rows, numeric=range(1, 1 + len(kinds)))
    ]
    if listed:
        parts += [
            Markup("<h3>Files that gave no text</h3>"),
            table("Files that gave no text", ["file", "outcome", "reason"], listed),
        ]
    return join(parts)

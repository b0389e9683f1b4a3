"""Sections about what is in the text: copies, languages, licences and sites, personal data, evaluation items."""

from collections import Counter

from gptwright.corpus.evidence import CONTAMINATED, EXACT, NEAR
from gptwright.corpus.report.collect import Facts, Row, total
from gptwright.corpus.report.markup import Markup, amount, bar, count, esc, join, name, share, size, table

TOP = 20  # rows of a long table


def copies(facts: Facts) -> Markup:
    """Copies: how many, how large their groups are, and the largest."""
    exact, near = total(facts, "failed", EXACT), total(facts, "failed", NEAR)
    if not exact + near:
        return Markup("")
    sizes = Counter({"1": 0, "2": 0, "3–4": 0, "5–9": 0, "10–99": 0, "100 and more": 0})
    for n, texts in facts.cluster_sizes.items():
        sizes[
            "1"
            if n == 1
            else "2"
            if n == 2
            else "3–4"
            if n < 5
            else "5–9"
            if n < 10
            else "10–99"
            if n < 100
            else "100 and more"
        ] += texts
    most = max(sizes.values())
    rows = [[label, f"{texts:,}", bar(("k", texts / most))] for label, texts in sizes.items() if texts]
    listed = [
        Markup(
            f'<li class="d"><p class="where"><b>{one.copies:,}</b> {"copy" if one.copies == 1 else "copies"} dropped · kept at'
            f' {name(f"{one.source}/{one.locator}")} · id {name(one.uid[:12])}</p><p class="text"><bdi>{esc(one.text)}</bdi></p></li>'
        )
        for one in facts.clusters
    ]
    lost = total(facts, "failed_bytes", EXACT) + total(facts, "failed_bytes", NEAR)
    return join(
        [
            Markup(
                f'<p class="note">{exact:,} documents are exact copies (case and layout aside), {near:,} nearly so; {size(lost)} of text. Each is'
                " dropped for a document that is kept; <code>gptwright data why</code> names it.</p>"
            ),
            Markup('<div class="pair">'),
            table(
                "Kept texts by how many copies of them were dropped",
                ["copies dropped", "texts", "how many"],
                rows,
                numeric=(1,),
            ),
            Markup(
                f'<div class="card"><details open><summary>Texts with most copies</summary><ul class="samples">{join(listed[:5])}</ul></details>'
            ),
            Markup(f'<details><summary>and the next</summary><ul class="samples">{join(listed[5:])}</ul></details>')
            if listed[5:]
            else "",
            Markup("</div></div>"),
        ]
    )


def _amounts(caption: str, first: str, rows: list[Row], whole: int, per: float) -> Markup:
    shown: list[list[object]] = [
        [
            name(row.name),
            f"{row.documents:,}",
            amount(row.bytes, per),
            join([share(row.bytes, whole), bar(("k", row.bytes / max(whole, 1)))]),
        ]
        for row in rows[:TOP]
    ]
    if len(rows) > TOP:
        rest = Row(f"{len(rows) - TOP:,} more", sum(r.documents for r in rows[TOP:]), sum(r.bytes for r in rows[TOP:]))
        shown.append([rest.name, f"{rest.documents:,}", amount(rest.bytes, per), share(rest.bytes, whole)])
    return table(caption, [first, "documents", "text", "share"], shown, numeric=(1, 2))


def makeup(facts: Facts) -> Markup:
    """Languages, licences and sites of what is kept."""
    parts = [
        _amounts(
            "Languages (und: not sure, zxx: none)",
            "language",
            facts.languages,
            facts.kept.bytes,
            facts.bytes_per_token,
        ),
        _amounts("Licences", "licence", facts.licences, facts.kept.bytes, facts.bytes_per_token),
    ]
    if facts.hosts:
        parts.append(
            _amounts("Sites of text from the web", "site", facts.hosts, facts.hosted.bytes, facts.bytes_per_token)
        )
    return Markup(f'<p class="note">Of the text that is kept.</p><div class="pair">{join(parts)}</div>')


def privacy(facts: Facts) -> Markup:
    """Personal data found, by source and kind."""
    kinds = sorted({kind for of in facts.sources.values() for kind, n in of["pii"].items() if n})
    if not kinds:
        return Markup(
            '<p class="note">No personal data was found by rules. They do not find all: no text is free of it for certain.</p>'
        )
    meta = facts.manifest["meta"]["sources"]
    rows = [
        [name(source), meta.get(source, {}).get("pii_policy", ""), *(f"{of['pii'].get(kind, 0):,}" for kind in kinds)]
        for source, of in facts.sources.items()
        if sum(of["pii"].values())
    ]
    return join(
        [
            Markup(
                '<p class="note">Found by rules in the kept documents, before the source’s policy was applied. Rules do not find all of it.</p>'
            ),
            table(
                "Personal data by source and kind", ["source", "policy", *kinds], rows, numeric=range(2, 2 + len(kinds))
            ),
        ]
    )


def contamination(facts: Facts) -> Markup:
    """Evaluation items whose text was found."""
    if not facts.items:
        return Markup("")
    rows = [[name(item), f"{n:,}"] for item, n in sorted(facts.items.items(), key=lambda one: (-one[1], one[0]))]
    shown = rows[:TOP] + ([[f"{len(rows) - TOP:,} more items", ""]] if len(rows) > TOP else [])
    documents, items = count(total(facts, "failed", CONTAMINATED), "document"), count(len(rows), "evaluation item")
    return join(
        [
            Markup(
                f'<p class="note">{documents} with text of {items}: dropped,'
                " since a model that has read an item cannot be measured with it.</p>"
            ),
            table("Evaluation items found", ["item", "documents"], shown, numeric=(1,)),
        ]
    )

"""The page: sections put together from what was collected."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from gptwright.core.files import atomic_write
from gptwright.core.ledger import Ledger
from gptwright.corpus.config import MixConfig
from gptwright.corpus.mix import SourceMix, effective_epochs
from gptwright.corpus.report import contents
from gptwright.corpus.report import sections as s
from gptwright.corpus.report.collect import Facts, collect
from gptwright.corpus.report.markup import Markup, esc, join, share, size

# No script, no picture, no font and no request: even a mark-up that slipped through could do nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(
    corpus_dir: Path,
    ledger: Ledger | None,
    out: Path,
    *,
    title: str = "Corpus",
    mix: MixConfig | None = None,
    weights: Mapping[str, float] | None = None,
    tokens: int | None = None,
    bytes_per_token: float = 4.0,
) -> Path:
    """Write the report of a built corpus.

    Args:
        corpus_dir: work/corpus.
        ledger: for the outcomes of files; None leaves them out.
        out: an .html file, or a folder that gets index.html.
        title: of the page; the project's name.
        mix: how the sources are mixed.
        weights: of the sources; None: as the corpus was built with.
        tokens: that training will see, for effective epochs; None: one pass.
        bytes_per_token: of the tokenizer; 4 is usual for English before there is one.

    Returns:
        The file. Same corpus, same bytes.

    Raises:
        UserError: the corpus is not built.
    """
    facts = collect(corpus_dir)
    facts.bytes_per_token = bytes_per_token
    named = {name: float(row.get("weight", 1.0)) for name, row in facts.manifest["meta"]["sources"].items()}
    mixed = effective_epochs(corpus_dir, mix or MixConfig(), weights or named, tokens, bytes_per_token)
    path = out if out.suffix == ".html" else out / "index.html"
    with atomic_write(path, "w") as file:
        file.write(render(facts, mixed, ledger, title, tokens))
    return path


def render(facts: Facts, mixed: list[SourceMix], ledger: Ledger | None, title: str, tokens: int | None) -> str:
    """The whole page as text."""
    warned = s.warnings(facts, mixed, tokens)
    parts = [
        s.Section("funnel", "What was kept", s.funnel(facts)),
        s.Section("sources", "Sources", s.sources(facts)),
        s.Section("signals", "Signals", s.signals(facts)),
        s.Section("boundary", "Boundary", s.boundary(facts)),
        s.Section("copies", "Copies", contents.copies(facts)),
        s.Section("make-up", "Languages, licences, sites", contents.makeup(facts)),
        s.Section("privacy", "Personal data", contents.privacy(facts)),
        s.Section("contamination", "Evaluation items", contents.contamination(facts)),
        s.Section("mix", "The mix", s.mix(mixed, tokens)),
        s.Section("files", "Files", s.outcomes(ledger)),
    ]
    parts = [part for part in parts if part.body]
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    links = join([Markup(f'<li><a href="#{part.id}">{esc(part.title)}</a></li>') for part in parts])
    body = join(
        [
            Markup(
                f'<section id="{part.id}" aria-labelledby="h-{part.id}"><h2 id="h-{part.id}">{esc(part.title)}</h2>{part.body}</section>'
            )
            for part in parts
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<meta name="referrer" content="no-referrer"><title>{esc(title)}: corpus report</title><style>{style}</style></head>\n'
        f'<body><a class="skip" href="#funnel">To the numbers</a><div class="wrap">{_header(facts, title, warned)}</div>'
        f'<nav aria-label="Sections"><div class="wrap"><ul>{links}</ul></div></nav>\n<main class="wrap">{body}</main>\n'
        f'<footer><div class="wrap">{_footer(facts)}</div></footer></body></html>\n'
    )


def _header(facts: Facts, title: str, warned: list[str]) -> Markup:
    meta, kept = facts.manifest["meta"], facts.kept
    read = sum(of["read"] for of in facts.sources.values())
    read_bytes = sum(of["bytes_read"] for of in facts.sources.values())
    tiles = [
        (f"{kept.documents:,}", "documents kept"),
        (size(kept.bytes), "of text kept"),
        (share(kept.bytes, read_bytes), "of the text that was read"),
        (size(meta["heldout"]["bytes"]), "held out, to measure on"),
        (str(len(facts.sources)), "source" if len(facts.sources) == 1 else "sources"),
        (str(len(warned)), "warning" if len(warned) == 1 else "warnings"),
    ]
    sign = Markup(
        '<svg viewBox="0 0 20 20" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"'
        ' stroke-linejoin="round" d="M10 2.5 18.2 17H1.8ZM10 8v4m0 2.4v.1"/></svg>'
    )
    listed = join([Markup(f"<li>{sign}<span>{esc(one)}</span></li>") for one in warned])
    return Markup(
        f'<header><p class="eyebrow">Corpus report</p><h1><bdi>{esc(title)}</bdi></h1>'
        f'<p class="lede"><strong>{kept.documents:,} of {read:,} documents</strong> that were read are kept, {size(kept.bytes)} of text.'
        f" {share(meta['heldout']['bytes'], kept.bytes)} of it is never trained on. The rules are those of the recipe"
        f" <strong>{esc(facts.recipe.name)}</strong>{esc(': ' + facts.recipe.description if facts.recipe.description else '')}.</p>"
        f'<ul class="tiles">{join([Markup(f"<li><b>{esc(a)}</b><span>{esc(b)}</span></li>") for a, b in tiles])}</ul>'
        + (f'<ul class="warnings" aria-label="Warnings">{listed}</ul>' if warned else "")
        + join([Markup(f'<p class="remark">{esc(one[:1].upper() + one[1:])}.</p>') for one in s.remarks(facts)])
        + "</header>"
    )


def _footer(facts: Facts) -> Markup:
    return Markup(
        f"Corpus <span class=id>{esc(facts.manifest['hash'])}</span>, recipe <span class=id>{esc(facts.recipe.hash[:19])}</span>."
        " Sizes are of UTF-8 text with its edits made. Personal data in excerpts is masked by rules, which do not find all."
        " Made by gptwright; nothing on this page is loaded from elsewhere."
    )

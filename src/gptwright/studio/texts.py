"""Which training texts an answer repeats: what the page shows of ``project.overlap``."""

import asyncio
from pathlib import Path

from gptwright.core.errors import UserError
from gptwright.project.overlap import LEAST_WORDS, Origin, Overlap, overlap
from gptwright.studio.page import esc

MOST_PASSAGES = 12
LOOKING = '<div class="gw-texts"><p role="status">Reading the training texts …</p></div>'

_one_at_a_time = asyncio.Semaphore(1)
"""It keeps a processor busy."""


async def look_up(corpus: Path | None, text: str, model: str, hosted: bool) -> str:
    """The overlap of an answer as HTML.

    Args:
        corpus: work/corpus; None or a folder without a corpus is said plainly.
        text: the answer.
        model: who gave it.
        hosted: whether it is a provider's, of whose training texts nothing is known here.
    """
    if corpus is None:
        return _none("There is no corpus on this machine to compare with.")
    async with _one_at_a_time:
        try:
            found = await asyncio.to_thread(overlap, corpus, text)
        except UserError:
            return _none("There is no corpus on this machine to compare with. Build one: gptwright data build.")
    return to_html(text, found, model, hosted)


def to_html(text: str, found: Overlap, model: str, hosted: bool) -> str:
    """What was found, each passage with the documents that hold it and their licences."""
    read = f"{found.documents:,} training document{'s' * (found.documents != 1)}"
    if not found.complete:
        share = found.documents / max(1, found.of)
        read = (
            f"{found.documents:,} of {found.of:,} training documents ({share:.0%}; the rest would have taken too long)"
        )
    if not found.passages:
        return _none(f"No {LEAST_WORDS} words in a row stand in the {read}.") + _whose(model, hosted)
    many = len(found.passages)
    out = f"<p>{many} passage{'s' * (many != 1)} of at least {LEAST_WORDS} words, looked for in {read}.</p><ol>"
    for passage in found.passages[:MOST_PASSAGES]:
        quoted = " ".join(text[passage.start : passage.end].split())
        out += f'<li><blockquote>{esc(quoted)}</blockquote><ul aria-label="Where it stands">'
        out += "".join(_origin(origin) for origin in passage.origins)
        out += f"<li>and {passage.more:,} more</li>" if passage.more else ""
        out += f'</ul><span class="gw-help">{passage.words} words</span></li>'
    out += "</ol>"
    if many > MOST_PASSAGES:
        out += f'<p class="gw-help">and {many - MOST_PASSAGES} shorter ones</p>'
    return f'<div class="gw-texts" role="region" aria-label="Training texts in this answer">{out}{_whose(model, hosted)}</div>'


def _origin(origin: Origin) -> str:
    licence = esc(origin.licence or "no licence known")
    name = esc(origin.title or f"{origin.source}/{origin.locator}")
    return (
        f'<li><span class="gw-licence">{licence}</span> <span>{name}</span> '
        f'<span class="gw-help">{esc(origin.source)} · id {esc(origin.id[:12])}</span></li>'
    )


def _whose(model: str, hosted: bool) -> str:
    if not hosted:
        return ""
    return f'<p class="gw-help">{esc(model)} was trained elsewhere; these are the texts of the project on this machine.</p>'


def _none(text: str) -> str:
    return f'<div class="gw-texts"><p role="status">{esc(text)}</p></div>'

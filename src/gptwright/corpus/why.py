"""Why a document is in the corpus or not, in words: every rule with what was measured, copies by the name of the one that is kept."""

import fnmatch
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.core.ledger import Ledger
from gptwright.corpus.decide import STATE
from gptwright.corpus.evidence import CONSENT, CONTAMINATED, DESCRIPTIONS, EXACT, LICENSE, NEAR, PRIVACY
from gptwright.corpus.find import find_document, find_documents
from gptwright.corpus.reading import Found
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.recipes.rule import unknown

_SPLITS = {"train": "for training", "heldout": "held out (never trained on, used to measure)"}


def why(corpus_dir: Path, ledger: Ledger, selector: str) -> list[str]:
    """Why a document, or a file that gave none, is in the corpus or not: lines for a person.

    Raises:
        UserError: nothing has this name.
    """
    found = find_documents(corpus_dir, selector, 5)
    if found:
        return [line for one in found for line in why_document(corpus_dir, one)]
    value = selector.removeprefix("path:")
    lines = []
    for file in ledger.files():
        if any(fnmatch.fnmatchcase(place, value) for place in (file.locator, f"{file.source}/{file.locator}")):
            lines.append(f"{file.source}/{file.locator}: {file.outcome}" + (f", {file.reason}" if file.reason else ""))
    if not lines:
        find_document(corpus_dir, selector)
    return lines


def describe(corpus_dir: Path, rule: str) -> str:
    """What a rule measures, in one line; empty when nobody said."""
    return DESCRIPTIONS.get(rule) or _descriptions(corpus_dir, _stamp(corpus_dir)).get(rule, "")


def rule_named(corpus_dir: Path, name: str, where: str) -> str:
    """The full name of a rule that documents may have failed; its implementation may be left out where that is clear.

    Raises:
        UserError: there is none, or there are two.
    """
    names = [*DESCRIPTIONS, *_descriptions(corpus_dir, _stamp(corpus_dir))]
    found = [name] if name in names else [rule for rule in names if rule.partition("@")[0] == name]
    if len(found) > 1:
        raise UserError(f"{name!r} could be {' or '.join(found)}", where=where, fix="Name the implementation too")
    if not found:
        raise unknown("rule", name, names, where)
    return found[0]


def _stamp(corpus_dir: Path) -> int:
    path = corpus_dir / STATE
    return path.stat().st_mtime_ns if path.exists() else 0


@cache
def _descriptions(corpus_dir: Path, stamp: int) -> dict[str, str]:
    if not stamp:
        return {}
    recipe = Recipe.from_data(read_json(corpus_dir / STATE)["recipe"])
    return {rule.id: rule.description for rule in recipe.rules}


def why_document(corpus_dir: Path, found: Found) -> list[str]:
    """The evidence of one document, as lines."""
    row, decision, numbers = found.row, found.decision, found.signals
    kept = decision["verdict"] == "keep"
    turns = f", {numbers['n_turns']} turns" if numbers.get("n_turns") is not None else ""
    lines = [
        f"{row['source']}/{row['locator']}  (id {row['doc_uid']})",
        f"  verdict: {'kept, ' + _SPLITS[decision['split']] if kept else 'dropped'}",
        *(f"  {_failure(corpus_dir, found, failed)}" for failed in decision["failed"]),
    ]
    measured = [
        f"{numbers['n_chars']} characters{turns}" if "n_chars" in numbers else "",
        f"{numbers['letter_share']:.0%} letters" if numbers.get("letter_share") is not None else "",
        f"compresses to {numbers['compress_ratio']:.0%}" if numbers.get("compress_ratio") is not None else "",
        f"language {numbers['lang']}" if numbers.get("lang") else "",
    ]
    lines += [
        "  text: " + ", ".join(part for part in measured if part),
        f"  read from: {row['mime']}, {row['charset'] or 'binary'}, by {row['extractor']}, file {row['raw_hash'][:19]}",
        f"  licence: {row['license_id'] or 'none known'} ({row['license_source']}, confidence {row['license_conf']:.1f})"
        + (f", {row['attribution']}" if row["attribution"] else ""),
    ]
    personal = {
        key.removeprefix("pii_").upper(): n
        for key, n in numbers.items()
        if key.startswith("pii_") and key != "pii_drop" and n
    }
    if personal:
        counted = ", ".join(f"{count} {kind}" for kind, count in personal.items())
        lines.append(f"  personal data found: {counted} (policy: {row['pii_policy']})")
    if edits := Counter(edit.kind for edit in found.edits):
        lines.append("  edits: " + ", ".join(f"{count} {kind}" for kind, count in sorted(edits.items())))
    return lines


def _failure(corpus_dir: Path, found: Found, failed: dict[str, Any]) -> str:
    rule, decision = failed["rule"], found.decision
    if rule in (EXACT, NEAR):
        other = find_document(corpus_dir, f"id:{decision['kept_uid']}").document
        name = f"{other.source}/{other.locator} (id {other.uid}), which is kept"
        if rule == EXACT:
            alike = "the same words as" if decision["method"] == "same words" else "the same text as"
            return f"{rule}: {alike} {name}"
        return f"{rule}: nearly the same text as {name}; {_likeness(failed, decision)}"
    if rule == CONTAMINATED:
        items = decision["eval_items"] or []
        listed = ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
        return f"{rule}: holds text of the evaluation items {listed}; overlap {failed['value']:.0%}"
    if rule == CONSENT:
        return "\n    ".join([f"{rule}: {DESCRIPTIONS[rule]}", *_statements(found.row["consent"])])
    if rule == LICENSE:
        return f"{rule}: the licence {found.row['license_id'] or '(none known)'} is none of those the recipe allows"
    if rule == PRIVACY:
        return (
            f"{rule}: {failed['value']:.0f} pieces of personal data, and the source's policy is to drop such documents"
        )
    description = describe(corpus_dir, rule)
    return f"{rule}: measured {failed['value']:.4g}, dropped when {failed['op']} {failed['threshold']:.4g}" + (
        f" ({description})" if description else ""
    )


def _likeness(failed: dict[str, Any], decision: dict[str, Any]) -> str:
    """How alike a near copy and the kept one are, and which of it was enough."""
    similarity, held = decision["jaccard"], decision["containment"]
    told = f"similarity {similarity:.2f}" + (f", {held:.0%} of it stand there" if held is not None else "")
    enough = failed["threshold"]
    if failed["value"] == similarity:
        return f"{told} (verified on the texts; a copy from similarity {enough:.2f})"
    if failed["value"] == held:
        return f"{told} (verified on the texts; a copy when {enough:.0%} of it stand there)"
    return f"{told}, and it holds {failed['value']:.0%} of that held-out text (verified on the texts; a copy from {enough:.0%})"


def _statements(consent: str | None) -> list[str]:
    """What a publisher said, where and when, a line for each refusal."""
    said = [one for one in json.loads(consent or "[]") if one["bit"]]
    return [f"{one['text']}  (in {one['where']}, {one.get('url') or 'no address'}, {one.get('at')})" for one in said]

"""The suite ``adaptation``: a tuned model beside the one that it was tuned from, on the same held-out text, watched text and questions.

What is written to ``work/reports/adaptation-MODEL.html`` and ``.json`` is what is printed, and each reply to each question.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, read_json, write_json
from gptwright.core.hashing import content_id
from gptwright.core.ledger import Ledger
from gptwright.core.progress import say
from gptwright.corpus import readers
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.sources.kinds import list_source
from gptwright.corpus.view import documents
from gptwright.evaluate.bpb import bits_per_byte
from gptwright.evaluate.questions import QuestionReport, compare_questions
from gptwright.evaluate.record import latest_bpb, record_bpb
from gptwright.evaluate.scores import BitsPerByte, compare_bpb
from gptwright.evaluate.statistics import Comparison
from gptwright.infer.engine import Engine
from gptwright.project.adaptpage import page
from gptwright.project.models import ModelRef, locate
from gptwright.project.scoring import load_to_score
from gptwright.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gptwright.project.project import Project

_COLUMNS = 100
WATCHED_BYTES = 32_000  # enough for an interval of a few hundredths of a bit, in seconds


@dataclass(frozen=True)
class Change:
    """One line of the comparison; ``test`` is of after against before, None where there is too little for one.

    Args:
        what: a source, the watched text or a file of questions.
        kind: heldout, watched or questions.
        n: documents or questions.
        before: of the base: bits per byte, or the share of right answers.
        after: of the tuned model.
        before_low, before_high, after_low, after_high: 95 % intervals, NaN where there is none.
        test: the paired test.
    """

    what: str
    kind: str
    n: int
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    test: Comparison | None

    def verdict(self) -> str:
        """better, worse, or not shown."""
        if self.test is None:
            return "too little to test"
        if not self.test.significant:
            return "no difference shown"
        gained = self.test.delta > 0 if self.kind == "questions" else self.test.delta < 0
        return "better" if gained else "worse"


@dataclass(frozen=True)
class _Text:
    """A text to measure on that is no document of the corpus."""

    uid: str
    text: str
    messages: list[dict[str, Any]] | None


def adaptation(
    project: "Project", ledger: Ledger, ref: ModelRef, answered: Mapping[str, QuestionReport]
) -> tuple[dict[str, Any], list[str]]:
    """Compare a model with its base.

    Args:
        project: the project.
        ledger: open for writing; the base's measurements are recorded.
        ref: the tuned model.
        answered: by suite, what the tuned model answered already; the base is asked the same.

    Returns:
        The report, and lines for a person.

    Raises:
        UserError: the watched text is not there.
    """
    base = base_of(project, ref)
    if base is None:
        say(f"evaluate: {ref.id} was not tuned from another model, so there is nothing to compare it with")
        return {}, []
    of_source = {d.uid: d.source for d in documents(project.work / "corpus", "heldout")}
    changes: list[Change] = []
    if of_source:
        after, before = (_heldout(project, ledger, one, of_source) for one in (ref, base))
        for source in sorted(set(of_source.values())):
            uids = {uid for uid, name in of_source.items() if name == source} & set(after.uids)
            if uids:
                changes.append(_change(source, "heldout", before.only(uids), after.only(uids)))
        if len(changes) > 1:
            changes.append(_change("all sources", "heldout", before, after))
    if project.settings.evaluate.watch is not None:
        texts = list(watched(project, project.settings.evaluate.watch))
        after, before = (_measure(project, one, texts) for one in (ref, base))
        changes.append(_change("watched: " + project.settings.evaluate.watch, "watched", before, after))
    questions = _asked(project, ledger, base, answered)
    for suite, (first, second) in questions.items():
        a, b, test = first.accuracy, second.accuracy, compare_questions(second, first)
        changes.append(Change(suite, "questions", a.n, a.value, a.low, a.high, b.value, b.low, b.high, test))
    report = {
        "model": ref.id,
        "base": base.id,
        "changes": [asdict(change) | {"verdict": change.verdict()} for change in changes],
        "questions": {
            suite: [
                {"question": a.question, "answers": a.answers, "before": a.reply, "before_right": a.correct,
                 "after": b.reply, "after_right": b.correct}
                for a, b in zip(first.items, second.items, strict=True)
            ]
            for suite, (first, second) in questions.items()
        },
    }  # fmt: skip
    lines = table(changes, base.id)
    place = project.work / "reports" / f"adaptation-{ref.id}"
    write_json(place.with_name(place.name + ".json"), report)
    with atomic_write(place.with_name(place.name + ".html"), "w") as file:
        file.write(page(report, table(changes, base.id, columns=None)))
    lines.append(f"  {place.relative_to(project.root).as_posix()}.html has every interval and reply")
    return report, lines


def base_of(project: "Project", ref: ModelRef) -> ModelRef | None:
    """The model that a model was tuned from, as its manifest names it; None for one that was not."""
    manifest = ref.path / "manifest.json"
    named = read_json(manifest).get("base") if manifest.is_file() else None
    if not named:
        return None
    found = locate(project, str(named["id"]))
    if found.hash != named["hash"]:
        raise UserError(
            f"{named['id']} is not the model any more that {ref.id} was tuned from",
            where=str(found.path),
            fix="Run: gptwright run finetune",
        )
    return found


def watched(project: "Project", uri: str) -> Iterator[_Text]:
    """Texts of a general kind, spread over all that the uri holds: those whose hashes come first, until there are enough bytes."""
    found: dict[str, _Text] = {}
    for file in list_source("watch", SourceConfig(uri=uri), project.root).files:
        try:
            for record in readers.read_file(file.path).records:
                messages = record.messages
                text = "\n".join(str(m["content"]) for m in messages) if messages else record.text
                if text.strip():
                    uid = content_id(text)
                    found[uid] = _Text(uid, text, None if messages is None else [dict(m) for m in messages])
        except (readers.NotText, readers.Skip):
            continue
    if not found:
        raise UserError("no text in it", where=f"[evaluate] watch = {uri!r}", fix="Name a file or folder of texts")
    left = WATCHED_BYTES
    for uid in sorted(found):
        if left <= 0:
            return
        left -= len(found[uid].text.encode())
        yield found[uid]


def _measure(project: "Project", ref: ModelRef, texts: Any) -> BitsPerByte:
    model = load_to_score(ref.path)
    seq_len = min(model.config.seq_len, int(project.settings.model.seq_len))
    return bits_per_byte(model, Tokenizer.load(ref.path), texts, seq_len)


def _heldout(project: "Project", ledger: Ledger, ref: ModelRef, current: Mapping[str, str]) -> BitsPerByte:
    """Of all held-out documents; what was measured on the same ones is not measured again."""
    kept = latest_bpb(ledger, ref.id, ref.hash)
    if kept is None or set(kept.uids) - set(current) or len(kept.uids) + kept.skipped != len(current):
        kept = _measure(project, ref, documents(project.work / "corpus", "heldout"))
        record_bpb(ledger, ref.id, ref.hash, kept)
    return kept


def _asked(
    project: "Project", ledger: Ledger, base: ModelRef, answered: Mapping[str, QuestionReport]
) -> dict[str, tuple[QuestionReport, QuestionReport]]:
    from gptwright.project.evaluating import ask_questions

    if not answered:
        return {}
    with Engine.load(base.path) as engine:
        return {
            suite: (ask_questions(project, ledger, base, engine, suite), after) for suite, after in answered.items()
        }


def _change(what: str, kind: str, before: BitsPerByte, after: BitsPerByte) -> Change:
    test = compare_bpb(after, before) if len(before.uids) > 1 else None
    return Change(what, kind, len(before.uids), before.value, *before.interval, after.value, *after.interval, test)


def table(changes: list[Change], base: str, columns: int | None = _COLUMNS) -> list[str]:
    """The comparison for a person.

    Args:
        changes: its lines.
        base: name of the model before.
        columns: at most so many, with the interval of the change alone; None: names in full and every interval, however wide.
    """
    named = base if columns is None else _short(base, columns - 68)
    lines = [f"  before ({named}) and after; bits per byte: less is better; 95 % intervals"]
    rows = [("n", "before", "after", "change", "")]
    for one in changes:
        share = one.kind == "questions"
        low, high = (one.test.low, one.test.high) if one.test is not None else (math.nan, math.nan)
        before, after = (one.before_low, one.before_high), (one.after_low, one.after_high)
        if columns is not None:
            before = after = (math.nan, math.nan)
        rows.append(
            (
                f"{one.n:,}",
                _value(one.before, *before, share),
                _value(one.after, *after, share),
                _value(one.after - one.before, low, high, share, sign="+"),
                one.verdict() + (f", p {_p(one.test.p_value)}" if one.test is not None else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    room = 999 if columns is None else columns - 2 - sum(width + 2 for width in widths)
    names = ["", *(_short(one.what, room) for one in changes)]
    for name, row in zip(names, rows, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(row[:4], widths, strict=False)]
        lines.append("  " + "  ".join([name.ljust(max(map(len, names))), *cells, row[4]]).rstrip())
    return lines


def _short(name: str, width: int) -> str:
    name = name.replace("package:", "")
    return name if len(name) <= width else name[: width - 1] + "…"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def _value(value: float, low: float, high: float, share: bool, sign: str = "") -> str:
    form = f"{sign}.0%" if share else f"{sign}.3f"
    return f"{value:{form}}" if math.isnan(low) else f"{value:{form}} [{low:{form}} {high:{form}}]"

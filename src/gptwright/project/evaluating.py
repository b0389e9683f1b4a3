"""Measuring a model of the project: held-out text beside baselines, samples, own questions, and two models in pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import write_json
from gptwright.core.hashing import b2_json
from gptwright.core.ledger import Ledger
from gptwright.core.lock import stage_lock
from gptwright.core.progress import say
from gptwright.core.stages import StageResult
from gptwright.corpus.view import documents
from gptwright.evaluate.baselines import Baseline, baselines
from gptwright.evaluate.bpb import bits_per_byte
from gptwright.evaluate.chat_quality import chat_quality
from gptwright.evaluate.questions import QuestionReport, own_questions
from gptwright.evaluate.record import latest_bpb, record_baselines, record_bpb, record_chat_quality, record_questions
from gptwright.evaluate.scores import BitsPerByte, compare_bpb
from gptwright.evaluate.statistics import Comparison
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.project.models import ModelRef, locate
from gptwright.project.scoring import load_to_score
from gptwright.project.stages import texts
from gptwright.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gptwright.project.pipeline import Job
    from gptwright.project.project import Project

SAMPLE = GenerationConfig(max_tokens=60, temperature=0.7, top_p=0.9, seed=1)
_OPENINGS = 200
BUILT_IN = ("heldout", "samples", "chat", "adaptation")


def evaluate_stage(job: "Job") -> StageResult:
    """What ``run`` measures at its end."""
    artifact = job.inputs["finetune"]
    ref = ModelRef(artifact.name, job.project.root / artifact.path, artifact.hash, artifact.id)
    suites = list(job.project.settings.evaluate.suites)
    if "heldout" in suites and next(documents(job.project.work / "corpus", "heldout"), None) is None:
        # One long document cannot be split; its owner still gets a model, though one that the gate holds back.
        say("evaluate: nothing is held out, so the model is not measured. Add documents")
        suites.remove("heldout")
    report, text = evaluate_model(job.project, job.ledger, ref, suites, kind="evaluation")
    return StageResult(
        "evaluation",
        f"evaluation-{b2_json(report)[3:13]}",
        report["path"],
        b2_json(report),
        {"summary": text, "model": ref.id},
    )


def evaluate(project: "Project", name: str | None, suites: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Measure a model now and record it.

    Args:
        project: the project.
        name: model; None means production, else the newest.
        suites: ``heldout``, ``samples``, ``chat``, or paths of question files; empty means those of the configuration.
    """
    ref = locate(project, name)
    if not project.has_ledger:
        raise UserError("there is no corpus to measure on", where=str(project.root), fix="Run: gptwright run corpus")
    with stage_lock(project.work, "evaluate"), project.ledger(readonly=False) as ledger:
        return evaluate_model(project, ledger, ref, suites or project.settings.evaluate.suites)


def evaluate_model(
    project: "Project", ledger: Ledger, ref: ModelRef, suites: Sequence[str], kind: str = "measured"
) -> tuple[dict[str, Any], str]:
    """Run suites on a model; gives the report as data and as text, and writes it to ``work/reports/KIND-MODEL.json``."""
    report: dict[str, Any] = {"model": ref.id, "model_hash": ref.hash}
    lines = [f"{ref.id}"]
    answered: dict[str, QuestionReport] = {}
    with Engine.load(ref.path) as engine:
        for suite in (suite for suite in suites if suite != "adaptation"):
            if suite == "heldout":
                measured, base = _heldout(project, ledger, ref)
                low, high = measured.interval
                report["heldout"] = {
                    "bits_per_byte": measured.value,
                    "low": low,
                    "high": high,
                    "documents": len(measured.uids),
                }
                report["baselines"] = {row.name: row.bits_per_byte for row in base}
                lines += _bars(
                    [("this model", measured.value), *((row.name, row.bits_per_byte) for row in base)],
                    len(measured.uids),
                )
            elif suite == "samples":
                report["samples"] = _samples(engine, project.settings.evaluate.samples)
                lines += ["", *(f"  you> {item['prompt']}\n  gpt> {item['reply']}" for item in report["samples"])]
            elif suite == "chat":
                report["chat"], more = _chat(project, ledger, ref, engine)
                lines += more
            else:
                asked = answered[suite] = ask_questions(project, ledger, ref, engine, suite)
                report.setdefault("questions", []).append(
                    {"path": asked.path, **vars(asked.accuracy), "mde": asked.mde}
                )
                lines += [
                    f"  {Path(asked.path).name}: {asked.accuracy} right; a difference under {asked.mde:.0%} could not be seen"
                ]
    if "adaptation" in suites:
        from gptwright.project.adapting import adaptation

        report["adaptation"], more = adaptation(project, ledger, ref, answered)
        lines += more
    path = project.work / "reports" / f"{kind}-{ref.id}.json"
    report["path"] = path.relative_to(project.root).as_posix()
    write_json(path, report)
    return report, "\n".join(lines)


def _heldout(project: "Project", ledger: Ledger, ref: ModelRef) -> tuple[BitsPerByte, list[Baseline]]:
    corpus = project.work / "corpus"
    model = load_to_score(ref.path)
    seq_len = min(model.config.seq_len, int(project.settings.model.seq_len))
    measured = bits_per_byte(model, Tokenizer.load(ref.path), documents(corpus, "heldout"), seq_len)
    base = baselines(texts(documents(corpus, "train")), texts(documents(corpus, "heldout")))
    record_bpb(ledger, ref.id, ref.hash, measured)
    record_baselines(ledger, base, measured.dataset_hash)
    return measured, base


def _bars(rows: list[tuple[str, float]], n: int) -> list[str]:
    """Held-out bits per byte, drawn; shorter is better."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  held-out bits per byte on {n} documents (less is better)"]
    lines += [f"  {name.ljust(width)}  {value:5.3f}  {'#' * round(5 * value)}" for name, value in rows]
    return lines


def _samples(engine: Engine, openings: Sequence[str]) -> list[dict[str, str]]:
    """Replies to openings. One that a small context cannot hold is said to be so; a run does not fail over a sample."""
    rows = []
    for opening in openings:
        try:
            (reply,) = _ask(engine, [[{"role": "user", "content": opening}]], SAMPLE)
        except UserError as error:
            reply = f"(none: {error})"
        rows.append({"prompt": opening, "reply": reply})
    return rows


def _ask(engine: Engine, chats: Sequence[Sequence[dict[str, str]]], config: GenerationConfig) -> list[str]:
    requests = [engine.submit_chat(chat, config) for chat in chats]
    return [request.result().text.strip() for request in requests]


def _fits(engine: Engine, context: Sequence[dict[str, str]]) -> bool:
    """Whether the last message leaves room for an answer; earlier ones are dropped if they must be."""
    try:
        engine.fit_chat(context, SAMPLE)
    except UserError:
        return False
    return True


def openings(project: "Project", n: int = 2 * _OPENINGS) -> list[list[dict[str, str]]]:
    """Held-out conversations cut before an answer: each document gives one, then each its second, and so on until n."""
    chats = [d.messages for d in documents(project.work / "corpus", "heldout") if d.messages]
    found: list[list[dict[str, str]]] = []
    for turn in range(max((len(chat) for chat in chats), default=0)):
        for chat in chats:
            wanted = 0 < turn < len(chat) and chat[turn]["role"] == "assistant" and len(found) < n
            if wanted and chat[:turn] not in found:  # many conversations begin with the same question
                found.append(chat[:turn])
    return found


def _chat(project: "Project", ledger: Ledger, ref: ModelRef, engine: Engine) -> tuple[dict[str, Any], list[str]]:
    contexts = [context for context in openings(project) if _fits(engine, context)][:_OPENINGS]
    if not contexts:
        raise UserError("the corpus has no held-out conversations", fix="Leave out the suite chat")
    replies = _ask(engine, contexts, SAMPLE)
    quality = chat_quality(replies, contexts)
    record_chat_quality(ledger, ref.id, ref.hash, quality, b2_json(contexts))
    lines = [f"  replies to {len(contexts)} held-out openings:"]
    names = {
        "complete_sentence": "end in a complete sentence",
        "no_repeat": "repeat no 4-gram",
        "on_subject": "share a content word",
    }
    lines += [f"    {label}: {getattr(quality, name)}" for name, label in names.items()]
    return quality.to_json(), lines


def ask_questions(project: "Project", ledger: Ledger, ref: ModelRef, engine: Engine, suite: str) -> QuestionReport:
    """Put a file of questions to a loaded model, and record what it got right."""
    path = project.root / suite
    if not path.is_file():
        raise UserError(
            f"no such suite: {suite}", fix=f"Suites are {', '.join(BUILT_IN)}, or the path of a question file"
        )
    greedy = GenerationConfig(max_tokens=80, temperature=0.0)
    report = own_questions(path, lambda chats: _ask(engine, chats, greedy))
    record_questions(ledger, ref.id, ref.hash, report)
    return report


def compare(project: "Project", a: str, b: str) -> tuple[dict[str, Any], str]:
    """Paired test of two models on the same held-out documents."""
    refs = [locate(project, name) for name in (a, b)]
    with stage_lock(project.work, "compare"), project.ledger(readonly=False) as ledger:
        comparison = paired(project, ledger, *refs)
    verdict = comparison.verdict(lower_is_better=True).replace("; ", ";\n  ")
    lines = [f"A {refs[0].id}", f"B {refs[1].id}", f"  {verdict}"]
    return {"a": refs[0].id, "b": refs[1].id, **comparison.to_json()}, "\n".join(lines)


def paired(project: "Project", ledger: Ledger, a: ModelRef, b: ModelRef) -> Comparison:
    """The comparison itself; what was measured before on the same held-out set is not measured again."""
    measured = []
    current: tuple[str, ...] | None = None
    for ref in (a, b):
        kept = latest_bpb(ledger, ref.id, ref.hash) if ref.hash else None
        if current is None:
            current = tuple(d.uid for d in documents(project.work / "corpus", "heldout"))
        if kept is None or set(kept.uids) - set(current) or len(kept.uids) + kept.skipped != len(current):
            kept, _ = _heldout(project, ledger, ref)
        measured.append(kept)
    return compare_bpb(measured[0], measured[1])

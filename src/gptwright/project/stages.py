"""The seven stages: what each depends on, and what it does. Arithmetic is in the rooms; here they are joined."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gptwright.core.errors import UserError
from gptwright.core.files import write_json
from gptwright.core.hashing import content_id
from gptwright.core.progress import say, short
from gptwright.core.stages import Stage, StageResult

if TYPE_CHECKING:
    from gptwright.corpus.view import Document
    from gptwright.project.pipeline import Job
    from gptwright.project.project import Project

STAGE_NAMES = ("corpus", "tokenizer", "tokens", "pretrain", "finetune", "evaluate", "release")
# Settings of training that decide nothing about the result.
_INERT = {"device", "threads", "log_every", "checkpoint_every", "eval_every", "compile", "micro_tokens"}
_CORPUS_CODE = (
    "build", "chats", "decide", "edits", "extract", "licences", "look", "privacy", "readers", "shapes", "sources.base", "sources.folder",
    "sources.kinds", "sources.package", "sources.raw", "tables",
    "text", "tidy",
)  # fmt: skip
_TRAIN_CODE = (
    "gptwright.model.transformer",
    "gptwright.train.loop",
    "gptwright.train.optim",
    "gptwright.train.schedule",
    "gptwright.train.stepper",
    "gptwright.train.workers",
    "gptwright.model.kernels",
)


def stages_of(project: "Project") -> list[Stage]:
    """The stages of this project. A project that adapts an open model neither trains a tokenizer nor pretrains."""
    from gptwright.corpus.sources.kinds import fingerprint_sources

    settings = project.settings
    own = settings.finetune.base == "pretrain"

    def keys(section: str) -> tuple[str, ...]:
        fields = type(getattr(settings, section)).model_fields
        return tuple(f"{section}.{name}" for name in fields if name not in _INERT)

    corpus = Stage(
        "corpus",
        config=("corpus", "project.intent"),
        code=tuple(f"gptwright.corpus.{name}" for name in _CORPUS_CODE),
        libraries=("resiliparse", "phonenumbers", "pyyaml"),
        outside=lambda: {
            f"source {name}": print for name, print in fingerprint_sources(settings.corpus, project.root).items()
        },
    )
    from_scratch = [
        Stage("tokenizer", ("corpus",), ("tokenizer",), ("gptwright.tokens.bpe",), ("tokenizers",)),
        Stage(
            "tokens",
            ("corpus", "tokenizer"),
            code=("gptwright.tokens.chat", "gptwright.tokens.shards", "gptwright.tokens.tokenizer"),
            libraries=("tokenizers",),
            outside=lambda: {f"weight of {name}": str(s.weight) for name, s in settings.corpus.sources.items()},
        ),
        Stage(
            "pretrain",
            ("tokens", "tokenizer", "corpus"),
            (*keys("pretrain"), *keys("model")),
            (*_TRAIN_CODE, "gptwright.tokens.plan", "gptwright.tokens.permute", "gptwright.model.presets"),
            ("torch",),
        ),
    ]
    data = settings.finetune.data
    finetune = Stage(
        "finetune",
        ("corpus", "pretrain") if own else () if data else ("corpus",),
        keys("finetune") if own else (*keys("finetune"), "model.seq_len"),
        (*_TRAIN_CODE, "gptwright.tokens.sft", "gptwright.model.lora"),
        ("torch",),
        outside=lambda: _base_fingerprint(project) | ({"[finetune] data": _stat(project.root / data)} if data else {}),
    )
    rest = [
        Stage(
            "evaluate",
            ("finetune", "corpus"),
            ("evaluate",),
            tuple(f"gptwright.evaluate.{name}" for name in ("bpb", "baselines", "questions", "chat_quality")),
            outside=lambda: {
                suite: _stat(path) for suite in settings.evaluate.suites if (path := project.root / suite).is_file()
            },
        ),
        Stage(
            "release",
            ("evaluate", "finetune"),
            ("release", "project.intent"),
            (
                "gptwright.release.gate",
                "gptwright.govern.cards",
                "gptwright.govern.policy",
                "gptwright.govern.applicability",
            ),
        ),
    ]
    return [corpus, *(from_scratch if own else []), finetune, *rest]


def _stat(path: Path) -> str:
    if not path.exists():
        return "missing"
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return ";".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)


def _base_fingerprint(project: "Project") -> dict[str, str]:
    """An imported base is no stage; its hash makes fine-tuning stale when it is imported anew."""
    from gptwright.project.models import base_place

    base = project.settings.finetune.base
    if base == "pretrain" or not project.has_ledger:
        return {}
    if (place := base_place(project)) is not None:
        return {"[finetune] base": _stat(place)}
    from gptwright.project.models import alias_names

    if base in alias_names(project) and (release := project.registry.current(base)) is not None:
        return {"[finetune] base": release.model_hash}
    with project.ledger() as ledger:
        found = ledger.find("model", base)
    return {"[finetune] base": found.hash if found else "missing"}


def corpus(job: "Job") -> StageResult:
    """Gather the sources, clean, deduplicate, mask, split; then ask whether their licences fit the project's intent."""
    from gptwright.corpus.build import build_corpus
    from gptwright.govern.policy import check

    project = job.project
    if not project.settings.corpus.sources:
        raise UserError(
            "no sources",
            where=f"{project.root / 'gptwright.toml'} [corpus.sources]",
            fix="Run: gptwright data add FOLDER, or: gptwright data add package:NAME",
        )
    result = build_corpus(project.settings.corpus, root=project.root, out=project.work / "corpus", ledger=job.ledger)
    sizes = {name: int(row["bytes"]) for name, row in result.meta["sources"].items()}
    for warning in check(job.ledger.sources(), project.settings.project.intent, sizes).warnings:
        say(f"corpus: {warning}")
    say(f"corpus: {result.documents:,} documents, {short(result.bytes)}B")
    return StageResult(
        "dataset", f"corpus-{result.hash[3:13]}", "work/corpus", result.hash, {**result.meta, "source_bytes": sizes}
    )


def texts(documents: "Iterator[Document]") -> Iterator[str]:
    """What people wrote, without the template around it: a tokenizer should not learn the template."""
    for document in documents:
        if document.messages:
            yield from (str(message["content"]) for message in document.messages)
        else:
            yield document.text


def identity(document: "Document") -> str:
    """Which text stands at which place: an edited file is a new text at an old place."""
    return f"{document.uid}:{content_id(document.text)[:16]}"


def write_contents(folder: Path, documents: "Iterator[Document]") -> None:
    """Note beside a token data set which texts the corpus held then, held-out ones too: a refresh compares with it."""
    write_json(folder.with_name(folder.name + ".contents.json"), sorted({identity(document) for document in documents}))


def weighted(documents: "Iterator[Document]", weights: Mapping[str, float]) -> "Iterator[Document]":
    """Each document as often as its source's weight says; of a fraction, the documents whose id falls under it."""
    for document in documents:
        whole, part = divmod(weights.get(document.source, 1.0), 1)
        extra = int(document.uid[:8], 16) / 16**8 < part
        for _ in range(int(whole) + extra):
            yield document


def tokenizer(job: "Job") -> StageResult:
    """Train the vocabulary on the training part."""
    from gptwright.corpus.view import documents
    from gptwright.tokens.tokenizer import train_tokenizer

    size = job.project.settings.tokenizer.vocab_size
    made = train_tokenizer(texts(documents(job.project.work / "corpus", "train")), size, job.project.work / "tokenizer")
    meta = {"vocab_size": made.vocab_size}
    return StageResult("tokenizer", f"bpe-{made.hash[3:13]}", "work/tokenizer", made.hash, meta)


def tokens(job: "Job") -> StageResult:
    """Encode the training part into shards that know their documents."""
    from gptwright.corpus.view import documents
    from gptwright.tokens.shards import write_tokens
    from gptwright.tokens.tokenizer import Tokenizer

    work = job.project.work
    loaded = Tokenizer.load(work / "tokenizer")
    name = job.inputs["corpus"].hash[3:13]
    weights = {name: source.weight for name, source in job.project.settings.corpus.sources.items()}
    result = write_tokens(weighted(documents(work / "corpus", "train"), weights), loaded, work / "tokens" / name)
    write_contents(work / "tokens" / name, documents(work / "corpus"))
    meta = {"tokens": result.tokens, "documents": result.documents, "bytes": result.bytes}
    return StageResult("tokens", f"tokens-{result.hash[3:13]}", f"work/tokens/{name}", result.hash, meta)


def _pretrain(job: "Job") -> StageResult:
    from gptwright.project.training import pretrain

    return pretrain(job)


def _finetune(job: "Job") -> StageResult:
    from gptwright.project.training import finetune

    return finetune(job)


def _evaluate(job: "Job") -> StageResult:
    from gptwright.project.evaluating import evaluate_stage

    return evaluate_stage(job)


def _release(job: "Job") -> StageResult:
    from gptwright.project.releasing import release_stage

    return release_stage(job)


FUNCTIONS: dict[str, Callable[["Job"], StageResult]] = {
    "corpus": corpus,
    "tokenizer": tokenizer,
    "tokens": tokens,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "release": _release,
}

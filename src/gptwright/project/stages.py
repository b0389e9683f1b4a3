"""The seven stages: what each depends on, and what it does. Arithmetic is in the rooms; here they are joined."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import write_json
from gptwright.core.hashing import b2_json, content_id
from gptwright.core.progress import say, short
from gptwright.core.stages import Stage, StageResult

if TYPE_CHECKING:
    from gptwright.corpus.view import Document
    from gptwright.project.pipeline import Job
    from gptwright.project.project import Project

STAGE_NAMES = ("corpus", "tokenizer", "tokens", "pretrain", "finetune", "evaluate", "release")
# Settings of training that decide nothing about the result.
_INERT = {
    "device", "threads", "log_every", "checkpoint_every", "checkpoint_async", "keep_last", "keep_best", "eval_every", "compile",
    "micro_tokens", "canaries", "parallel", "activation_checkpointing", "peer_timeout", "watch_every", "on_divergence",
}  # fmt: skip
# Terms of [finetune] data: a release asks for them, training does not.
_TERMS = ("license", "attribution", "contains_personal_data")
_READ_ONLY = tuple(
    f"gptwright.corpus.{name}"
    for name in (
        "report",
        "view",
        "whatif",
        "why",
        "find",
        "borders",
        "reading",
        "select",
        "interop",
        "quality.desk",
        "quality.terminal",
    )
)
_CORPUS_KEYS = ("recipe", "sources", "heldout_share", "dedup", "decontaminate", "quality")
CORPUS_LIBRARIES = (
    "charset-normalizer", "ftfy", "phonenumbers", "py3langid", "pypdfium2", "python-stdnum", "pyyaml", "resiliparse",
)  # fmt: skip
_TRAIN_CODE = (
    "gptwright.model.transformer",
    "gptwright.train.documents",
    "gptwright.train.loop",
    "gptwright.train.objectives",
    "gptwright.train.optim",
    "gptwright.train.schedule",
    "gptwright.train.stepper",
    "gptwright.train.workers",
    "gptwright.model.kernels",
    "gptwright.train.distributed",
    "gptwright.train.sharded",
    "gptwright.train.shared",
)

_CANARY_SEED = 0
_TUNE_CODE = (
    *(f"gptwright.tokens.{name}" for name in ("answers", "goldfish", "packing", "preferences", "sft")),
    *(f"gptwright.train.{name}" for name in ("distill", "grpo", "int8", "logprobs", "preferences")),
)


def stages_of(project: "Project") -> list[Stage]:
    """The stages of this project. A project that adapts an open model neither trains a tokenizer nor pretrains."""
    settings = project.settings
    own = settings.finetune.base == "pretrain"

    def keys(section: str) -> tuple[str, ...]:
        given = getattr(settings, section)
        inert = {*_INERT, *_TERMS}
        if getattr(given, "patience", None) is not None:  # counted in held-out measurements
            inert -= {"eval_every"}
        return tuple(f"{section}.{name}" for name in type(given).model_fields if name not in inert)

    corpus = Stage(
        "corpus",
        config=(*(f"corpus.{name}" for name in _CORPUS_KEYS), "project.intent"),
        code=corpus_code(),
        libraries=CORPUS_LIBRARIES,
        outside=lambda: corpus_outside(project),
        proof="work/corpus/corpus.json",
    )
    from_scratch = [
        Stage("tokenizer", ("corpus",), ("tokenizer",), ("gptwright.tokens.bpe",), ("tokenizers",)),
        Stage(
            "tokens",
            ("corpus", "tokenizer"),
            ("corpus.mix", "pretrain.canaries"),
            code=(
                "gptwright.corpus.mix",
                "gptwright.tokens.canaries",
                "gptwright.tokens.chat",
                "gptwright.tokens.shards",
                "gptwright.tokens.tokenizer",
            ),
            libraries=("tokenizers",),
            outside=lambda: _weights_print(project),
        ),
        Stage(
            "pretrain",
            ("tokens", "tokenizer", "corpus"),
            (*keys("pretrain"), *keys("model")),
            (
                *_TRAIN_CODE,
                *(f"gptwright.tokens.{name}" for name in ("goldfish", "permute", "plan")),
                "gptwright.model.presets",
                "gptwright.train.dial",
            ),
            ("torch",),
        ),
    ]
    data, plain = settings.finetune.data, any(step.documents for step in settings.finetune.chain())
    finetune = Stage(
        "finetune",
        ("corpus", "pretrain") if own else () if data and not plain else ("corpus",),
        (*keys("finetune"), *(() if own else ("model.seq_len",)), *(("corpus.mix",) if plain else ())),
        (*_TRAIN_CODE, *_TUNE_CODE, "gptwright.model.lora"),
        ("torch",),
        outside=lambda: (
            _base_fingerprint(project) | _tuning_files(project) | (_weights_print(project) if plain else {})
        ),
    )
    rest = [
        Stage(
            "evaluate",
            ("finetune", "corpus"),
            ("evaluate",),
            (
                *(f"gptwright.evaluate.{name}" for name in ("bpb", "baselines", "questions", "chat_quality")),
                "gptwright.project.adapting",
            ),
            outside=lambda: {
                suite: _stat(path) for suite in settings.evaluate.suites if (path := project.root / suite).is_file()
            },
        ),
        Stage(
            "release",
            ("evaluate", "finetune"),
            ("release", "project.intent", *(f"finetune.{name}" for name in (*_TERMS, "data"))),
            (
                "gptwright.release.gate",
                "gptwright.govern.cards",
                "gptwright.govern.policy",
                "gptwright.govern.applicability",
            ),
        ),
    ]
    return [corpus, *(from_scratch if own else []), finetune, *rest]


def corpus_code() -> tuple[str, ...]:
    """All modules of the corpus room but those that only read what was built."""
    import gptwright.corpus

    folder = Path(gptwright.corpus.__path__[0])
    names = (".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py"))
    modules = (f"gptwright.corpus.{name}".removesuffix(".__init__") for name in names)
    return tuple(sorted(name for name in modules if not name.startswith(_READ_ONLY)))


def corpus_outside(project: "Project") -> dict[str, str]:
    """What lies outside ``work/`` and decides what a corpus is: sources, the recipe's files, reviews of licences."""
    from gptwright.corpus.recipes import Recipe
    from gptwright.corpus.sources.kinds import fingerprint_sources

    settings = project.settings.corpus
    found = {f"source {name}": print for name, print in fingerprint_sources(settings, project.root).items()}
    found["recipe"] = Recipe.load(settings.recipe, project.root).hash
    for place in (*settings.quality.models.values(), *settings.quality.lists):
        found[f"quality {place}"] = _stat(project.root / place)
    if reviews := _reviews_print(project):
        found["licence reviews"] = reviews
    return found


def _reviews_print(project: "Project") -> str:
    """Changes with a person's decisions about licences. Of a store in a file it is read without the machinery of databases, which takes
    longer to load than ``status`` may take."""
    if project.settings.serve.database_url:
        from gptwright.corpus.licences.decisions import decisions

        made = decisions(project.control)
        return b2_json([list(vars(one).values()) for one in made]) if made else ""
    path = project.state / "control.sqlite"
    if not path.is_file():
        return ""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        try:
            rows = db.execute(
                "SELECT source, scope, license_id, attribution FROM license_review ORDER BY id"
            ).fetchall()
        except sqlite3.OperationalError:  # a store of before there were reviews
            return ""
    return b2_json([list(row) for row in rows]) if rows else ""


def _stat(path: Path) -> str:
    if not path.exists():
        return "missing"
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return ";".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)


def _tuning_files(project: "Project") -> dict[str, str]:
    """The user's files that the steps of fine-tuning read."""
    found: dict[str, str] = {}
    for number, step in enumerate(project.settings.finetune.chain()):
        for name in ("data", "reward_file", "teacher"):
            value = getattr(step, name)
            if value is not None:
                place = project.root / value
                known = _stat(place) if place.exists() or name != "teacher" else value
                found[f"[finetune] {name}" + (f" of step {number + 1}" if number else "")] = known
    return found


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
    if base.startswith("package:"):
        from gptwright.project.exchange import find_model_file

        try:
            return {"[finetune] base": _stat(find_model_file(base))}
        except UserError:
            return {"[finetune] base": "missing"}
    with project.ledger() as ledger:
        found = ledger.find("model", base)
    return {"[finetune] base": found.hash if found else "missing"}


def corpus(job: "Job") -> StageResult:
    """Gather the sources, clean, deduplicate, mask, split; then ask whether their licences fit the project's intent."""
    from gptwright.core.executors import executor
    from gptwright.corpus.build import build_corpus
    from gptwright.govern.policy import check, terms_of

    project = job.project
    settings = project.settings
    if not settings.corpus.sources:
        raise UserError(
            "no sources",
            where=f"{project.root / 'gptwright.toml'} [corpus.sources]",
            fix="Run: gptwright data add FOLDER, or: gptwright data add package:NAME",
        )
    result = build_corpus(
        settings.corpus,
        ledger=job.ledger,
        executor=executor("ray", storage=settings.corpus.storage) if project.executor == "ray" else None,
        **corpus_inputs(project),
    )
    terms = terms_of(result.meta["sources"])
    for warning in check(terms.rows, settings.project.intent, terms.sizes).warnings:
        say(f"corpus: {warning}")
    sizes = {name: int(row["bytes"]) for name, row in result.meta["sources"].items()}
    say(f"corpus: {result.documents:,} documents, {short(result.bytes)}B")
    return StageResult(
        "dataset", f"corpus-{result.hash[3:13]}", "work/corpus", result.hash, {**result.meta, "source_bytes": sizes}
    )


def corpus_inputs(project: "Project") -> dict[str, Any]:
    """What decides a corpus beside its configuration, for ``build_corpus``; whoever builds it gives all of it, or texts would differ."""
    from gptwright.corpus.licences.decisions import decisions
    from gptwright.corpus.privacy.pseudonyms import load_or_make_key
    from gptwright.project.erasing import blocks_of

    suites = [suite for suite in project.settings.evaluate.suites if (project.root / suite).is_file()]
    return {
        "root": project.root,
        "out": project.work / "corpus",
        "blocks": blocks_of(project),
        "key": load_or_make_key(project.state) if _pseudonymizes(project) else None,
        "suites": suites,
        "reviews": decisions(project.control) if project.has_control else (),
    }


def _pseudonymizes(project: "Project") -> bool:
    return any("pseudonymize" in str(source.pii) for source in project.settings.corpus.sources.values())


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


def _weights_print(project: "Project") -> dict[str, str]:
    return {f"weight of {name}": str(weight) for name, weight in weights_of(project).items()}


def weights_of(project: "Project") -> dict[str, float]:
    """The weights of the sources, by name."""
    return {name: source.weight for name, source in project.settings.corpus.sources.items()}


def tokenizer(job: "Job") -> StageResult:
    """Train the vocabulary on the training part."""
    from gptwright.corpus.view import documents
    from gptwright.tokens.tokenizer import train_tokenizer

    size = job.project.settings.tokenizer.vocab_size
    made = train_tokenizer(texts(documents(job.project.work / "corpus", "train")), size, job.project.work / "tokenizer")
    meta = {"vocab_size": made.vocab_size}
    return StageResult("tokenizer", f"bpe-{made.hash[3:13]}", "work/tokenizer", made.hash, meta)


def _documents_in(job: "Job") -> int:
    return sum(int(row["train"]["documents"]) for row in job.inputs["corpus"].meta["sources"].values())


def tokens(job: "Job") -> StageResult:
    """Encode the training part into shards that know their documents."""
    from gptwright.corpus.mix import documents as mixed
    from gptwright.corpus.view import documents
    from gptwright.tokens.canaries import make_canaries, plant
    from gptwright.tokens.shards import write_tokens
    from gptwright.tokens.tokenizer import Tokenizer

    work = job.project.work
    loaded = Tokenizer.load(work / "tokenizer")
    name = job.inputs["corpus"].hash[3:13]
    shown = mixed(work / "corpus", job.project.settings.corpus.mix, weights_of(job.project))
    canaries = make_canaries(job.project.settings.pretrain.canaries, _CANARY_SEED)
    result = write_tokens(plant(shown, canaries, _CANARY_SEED, _documents_in(job)), loaded, work / "tokens" / name)
    if canaries:
        job.ledger.add_event(job.run_id, "canaries", {"planted": [canary.record() for canary in canaries]})
        say(f"tokens: {len(canaries)} canaries planted, {sum(canary.repeats for canary in canaries)} times in all")
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

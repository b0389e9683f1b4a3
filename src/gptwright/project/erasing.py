"""``data trace`` and ``data forget``: who saw these documents, and taking them out of everything that can be changed.

What cannot be changed is said: weights that were trained on a text keep what they learned from it, and so does the tokenizer.
"""

import datetime
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from gptwright.core.control import Erasure, ErasureBlock
from gptwright.core.errors import UserError
from gptwright.core.files import read_json, write_json
from gptwright.core.hashing import b2_json
from gptwright.core.ledger import Ledger
from gptwright.core.lock import stage_lock
from gptwright.core.progress import say
from gptwright.core.stages import key_parts
from gptwright.corpus.blocks import Block, Blocks, erasure_key
from gptwright.corpus.build import build_corpus
from gptwright.corpus.forget import Victim, purge_raw, purge_tasks, still_at
from gptwright.corpus.select import band_keys, select, shared_places
from gptwright.corpus.sources.kinds import request_for
from gptwright.project.tracing import Exposure, Trace, datasets_with, proxies_left
from gptwright.project.tracing import trace as follow
from gptwright.tokens.erase import erase_documents
from gptwright.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gptwright.project.project import Project

PLAIN = (
    "id",
    "path",
    "source",
    "license",
)  # selectors that are no personal data themselves; of others the kind is kept
STATEMENT = (
    "Erased from the corpus, its indexes, what was gathered, and the token shards; recognised and refused if it comes back. "
    "Not changed: the weights of models that were trained on it, and the tokenizer. The runs that saw it are listed with their last clean "
    "checkpoint. Copies outside this project (backups, exports, files of your own) are not reached."
)


def blocks_of(project: "Project") -> Blocks | None:
    """The texts that must not come back, None when nothing was ever erased."""
    key = erasure_key(project.state)
    if key is None:
        return None
    with project.control.session() as session:
        rows = session.scalars(sa.select(ErasureBlock).order_by(ErasureBlock.id)).all()
        return Blocks(key, tuple(Block.load(row.mac, row.sketch) for row in rows)) if rows else None


def trace(project: "Project", selector: str) -> Trace:
    """Which data sets, runs, steps, checkpoints, models and releases hold or saw the documents that a selector names.

    Raises:
        UserError: the corpus is not built, or it names none.
    """
    victims = victims_of(project, selector, copies=True)
    with project.ledger() as ledger:
        return _follow(project, victims, ledger)


def victims_of(project: "Project", selector: str, *, copies: bool) -> list[Victim]:
    """The documents of the corpus, and the examples of ``[finetune] data``, that a selector names, with their copies.

    Raises:
        UserError: it names none.
    """
    from gptwright.project.examples import find_examples

    nothing: UserError | None = None
    victims: list[Victim] = []
    try:
        victims = select(project.work / "corpus", selector, copies=copies)
    except UserError as error:
        nothing = error
    known = {victim.norm_id: victim for victim in victims} if copies else None
    examples = find_examples(project, selector, known)
    if nothing is not None and not examples:
        raise nothing
    return [*victims, *examples]


def _follow(project: "Project", victims: Sequence[Victim], ledger: Ledger) -> Trace:
    return follow(project, [victim.row() for victim in victims], ledger, {v.uid: v.norm_id for v in victims})


def forget(
    project: "Project", selector: str, basis: str, *, dry_run: bool = False, promote_next: bool = False
) -> dict[str, Any]:
    """Erase the documents that a selector names, with all copies and near copies.

    Args:
        project: the project.
        selector: as ``data why`` takes it.
        basis: the ground, in words: "GDPR Art. 17, ticket 12", "licence withdrawn".
        dry_run: only say what would go.
        promote_next: leave copies that stand elsewhere; one of them takes the place of what goes. For a licence that was withdrawn,
            not for a person's demand.

    Returns:
        The certificate: selector, basis, time, documents, what changed with hashes before and after, who saw it, what remains.

    Raises:
        UserError: it names none, or no basis is given.
    """
    if not basis.strip():
        raise UserError("an erasure needs a basis", fix='Say it: --basis "GDPR Art. 17, request of 3 May"')
    if dry_run:
        victims = victims_of(project, selector, copies=not promote_next)
        with project.ledger() as ledger:
            found = _follow(project, victims, ledger)
        return {"dry_run": True, "trace": found.data(), "lines": found.lines()}
    purpose = f"data forget {selector.partition(':')[0]}"
    with stage_lock(project.work, purpose), project.ledger(readonly=False) as ledger:
        victims = victims_of(project, selector, copies=not promote_next)
        found = _follow(project, victims, ledger)
        erasure = _announce(project, selector, basis, victims, by_place=promote_next)
        changed = _carry_out(project, ledger, victims)
        return _certify(project, erasure, selector, basis, victims, found, changed)


def _announce(project: "Project", selector: str, basis: str, victims: Sequence[Victim], by_place: bool) -> int:
    """Before anything is deleted: write down that it must never come back. Whatever happens next, a build keeps to it."""
    key = erasure_key(project.state, make=True)
    assert key is not None
    blocks = Blocks(key)
    if by_place:
        made = [Block(blocks.mac_of_place(bytes.fromhex(victim.uid))) for victim in victims]
    else:
        keys = band_keys(project.work / "corpus", victims)
        made = [blocks.block(bytes.fromhex(victim.norm_id), keys.get(victim.uid)) for victim in victims]
    with project.control.session() as session:
        erasure = Erasure(
            basis=basis,
            selector=_shown(selector),
            documents=len(victims),
            certificate={"state": "begun"},
            previous=None,
            hash="",
        )
        session.add(erasure)
        session.flush()
        known = set(session.scalars(sa.select(ErasureBlock.mac)))
        for mac, sketch in dict(block.dump() for block in made).items():
            if mac not in known:
                session.add(ErasureBlock(erasure_id=erasure.id, mac=mac, sketch=sketch))
        return erasure.id


def _carry_out(project: "Project", ledger: Ledger, victims: Sequence[Victim]) -> list[str]:
    """Out of the raw stores, the corpus, the shards and the reports. Done twice it does the same."""
    from gptwright.project.stages import corpus_inputs, stages_of

    corpus, work = project.work / "corpus", project.work
    if not (corpus / "corpus.json").is_file():  # only examples of fine-tuning are named: they are left out from now on
        return []
    uids = {victim.uid for victim in victims}
    lines = purge_raw(corpus / "raw", victims, shared_places(corpus, victims))
    lines += _drop_proxies(project)
    made = ledger.latest_of_stage("corpus")
    purge_tasks(corpus, {victim.norm_id for victim in victims})
    for report in sorted((work / "reports").glob("data*.html")) if (work / "reports").is_dir() else []:
        report.unlink()
        lines.append(f"{report.relative_to(project.root).as_posix()}: deleted; it is drawn again by data report")
    result = build_corpus(project.settings.corpus, ledger=ledger, **corpus_inputs(project))
    if made is not None:
        stage = stages_of(project)[0]
        parts = key_parts(stage, project.config_values(), {})
        ledger.amend(made.id, key=b2_json(parts), meta={"made_from": parts, "erased_from": {"now": result.hash}})
        lines.append(f"corpus: {made.hash[3:13]} is now {result.hash[3:13]}, {result.documents:,} documents")
    for row in datasets_with(project, uids):
        folder = project.root / row["path"]
        tokenizer = _tokenizer_of(project, folder)
        before = read_json(folder / "dataset.json")["hash"]
        after, shards = erase_documents(folder, uids, tokenizer)
        if after is not None:
            lines.append(
                f"{row['path']}: {row['documents']} documents in {', '.join(shards)}; {before[3:13]} is now {after.hash[3:13]}"
            )
            for artifact in ledger.artifacts("tokens"):
                if artifact.path == row["path"]:
                    ledger.amend(artifact.id, meta={"erased_from": {"before": before, "now": after.hash}})
        contents = folder.with_name(folder.name + ".contents.json")
        if contents.is_file():
            write_json(contents, [entry for entry in read_json(contents) if entry.partition(":")[0] not in uids])
    ledger.compact()
    return lines


def _drop_proxies(project: "Project") -> list[str]:
    """Weights that a stopped sweep left are no results: the sweep trains them again."""
    lines = []
    for folder in proxies_left(project.work):
        shutil.rmtree(folder)
        lines.append(
            f"{folder.relative_to(project.root).as_posix()}: deleted; the stopped sweep trains its proxies again"
        )
    return lines


def _tokenizer_of(project: "Project", dataset: Path) -> Tokenizer:
    """The tokenizer that wrote a data set: the project's, or a model's."""
    wanted = read_json(dataset / "dataset.json")["tokenizer"]
    for folder in (project.work / "tokenizer", *sorted((project.work / "models").glob("*"))):
        if (folder / "tokenizer.json").is_file() and (tokenizer := Tokenizer.load(folder)).hash == wanted:
            return tokenizer
    raise UserError(
        "the tokenizer that wrote these tokens is gone",
        where=str(dataset),
        fix="Delete the folder; it is not used any more",
    )


def _certify(
    project: "Project",
    erasure_id: int,
    selector: str,
    basis: str,
    victims: Sequence[Victim],
    found: Trace,
    changed: list[str],
) -> dict[str, Any]:
    places = {
        name: project.root / Path(source.uri).expanduser()
        for name, source in project.settings.corpus.sources.items()
        if not request_for(name, source, project.root).scheme
    }
    places["finetune"] = project.root  # examples of [finetune] data stand in the person's own files
    remains = still_at(project.root, victims, project.work / "corpus" / "raw", places)
    traced = {key: value for key, value in found.data().items() if key != "documents"}
    certificate = {
        "state": "done",
        "erasure": erasure_id,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "selector": _shown(selector),
        "basis": basis,
        "documents": [victim.uid for victim in victims],
        "licences": sorted({victim.license or "none known" for victim in victims}),
        "changed": changed,
        "exposed": traced,
        "remains": remains,
        "statement": STATEMENT,
    }
    with project.control.session() as session:
        previous = session.scalars(
            sa.select(Erasure).where(Erasure.id < erasure_id).order_by(Erasure.id.desc())
        ).first()
        erasure = session.get_one(Erasure, erasure_id)
        erasure.previous = previous.hash if previous else None
        erasure.hash = b2_json([erasure.previous, certificate])
        erasure.certificate = certificate
    path = project.state / "erasures" / f"erasure-{erasure_id:04d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, certificate)
    for file in remains:
        say(f"forget: still in {file}, which is yours: delete it there too; a build refuses it meanwhile")
    return {**certificate, "path": path.relative_to(project.root).as_posix()}


def _shown(selector: str) -> str:
    """What may be kept of a selector: an address or a text that was to be erased may not."""
    kind, mark, _ = selector.partition(":")
    return selector if not mark or kind in PLAIN else f"{kind}:(not kept)"


def certificate_text(certificate: dict[str, Any]) -> str:
    """A certificate for a person."""
    if certificate.get("dry_run"):
        return "\n".join(["Nothing was changed. This would be erased:", *certificate["lines"]])
    lines = [f"erased: {len(certificate['documents']):,} documents ({certificate['selector']}; {certificate['basis']})"]
    lines += [f"  {line}" for line in certificate["changed"]]
    trace = Trace(**{**certificate["exposed"], "documents": []})
    lines += [f"  {line}" for line in _exposed(trace)]
    lines += [f"  still in {file}: yours to delete" for file in certificate["remains"]]
    return "\n".join([*lines, "", certificate["statement"], f"Certificate: {certificate['path']}"])


def _exposed(trace: Trace) -> list[str]:
    trace.runs = [Exposure(**run) if isinstance(run, dict) else run for run in trace.runs]
    return trace.lines()[1:]

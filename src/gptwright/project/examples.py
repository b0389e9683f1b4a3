"""Examples of ``[finetune] data``, which are no documents of the corpus: named by file and row, known again by their texts.

So ``data trace`` finds the steps that saw one, and what was erased is left out, though the file is the person's own and still has it.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from gptwright.core.hashing import doc_uid, norm_id
from gptwright.core.progress import say
from gptwright.corpus.blocks import Blocks
from gptwright.corpus.chats import read_chats
from gptwright.corpus.dedup.features import features
from gptwright.corpus.find import passage_of, selector_of
from gptwright.corpus.forget import Victim
from gptwright.tokens.preferences import Judged, Pair, Task, read_judged, read_pairs, read_tasks

if TYPE_CHECKING:
    from gptwright.project.project import Project
    from gptwright.project.settings import FinetuneStep

SOURCE = (
    "finetune"  # stands for a source's name where one is asked for; no source of the corpus is named so by accident
)


@dataclass(frozen=True)
class Told:
    """A conversation of a user's file. ``uid`` is the file and the number of the conversation in it."""

    uid: str
    messages: list[dict[str, Any]]
    text: str = field(default="")


class Named(Protocol):
    """Told, Pair, Judged or Task."""

    @property
    def uid(self) -> str: ...


Example = TypeVar("Example", bound=Named)


def told(path: Path) -> list[Told]:
    """The conversations of a file; rows that cannot be used are said."""
    found = read_chats(path)
    for fault in found.faults:
        say(f"finetune: {fault}")
    return [
        Told(f"{path.name}:{number}", [dict(message) for message in messages])
        for number, messages in enumerate(found.conversations, 1)
    ]


def texts_of(example: Any) -> list[str]:
    """The texts of an example: whole, as the corpus would have them (turns one after the other, a line each), one for each answer."""
    if isinstance(example, Told):
        whole = [example.messages]
    elif isinstance(example, Pair):
        whole = [[*example.prompt, *example.chosen], [*example.prompt, *example.rejected]]
    elif isinstance(example, Judged):
        whole = [[*example.prompt, *example.answer]]
    elif isinstance(example, Task):
        answer = [] if example.answer is None else [{"content": example.answer}]
        whole = [[*example.prompt, *answer]]
    else:
        return []
    return ["\n".join(_content(message) for message in messages) for messages in whole]


def norms_of(examples: Sequence[Any]) -> dict[str, list[str]]:
    """norm_ids of the whole texts of examples and of each of their turns, by example, for ``record_slots``."""
    found: dict[str, list[str]] = {}
    for example in examples:
        if texts := texts_of(example):
            own = found.setdefault(example.uid, [])
            own += [norm_id(text) for text in [*texts, *_turns(example)]]
    return {uid: sorted(set(norms)) for uid, norms in found.items()}


def spared(examples: Sequence[Example], blocks: Blocks | None) -> list[Example]:
    """The examples that were not erased: none of whose texts, whole or a turn, is an erased one or a near copy. Says how many were."""
    if blocks is None:
        return list(examples)
    texts: list[str] = []
    holders: list[int] = []
    for number in range(len(examples)):
        own = [*texts_of(examples[number]), *_turns(examples[number])]
        texts += own
        holders += [number] * len(own)
    norms = [bytes.fromhex(norm_id(text)) for text in texts]
    rows = set(blocks.match(norms))
    if texts:
        made = features(pa.array(texts, pa.large_string()))
        # A text too short to have any keys is compared whole.
        rows |= {row for row in blocks.match(norms, made.keys) if made.shingles[row]}
    gone = {holders[row] for row in rows}
    if gone:
        names = ", ".join(dict.fromkeys(examples[number].uid for number in sorted(gone)[:5]))
        say(
            f"finetune: {len(gone):,} examples were erased and are left out ({names}{', ...' if len(gone) > 5 else ''})"
        )
    return [examples[number] for number in range(len(examples)) if number not in gone]


def find_examples(project: "Project", selector: str, norms: Mapping[str, Any] | None = None) -> list[Victim]:
    """Examples of today's ``[finetune] data`` that a selector names, as rows for ``trace`` and ``forget``.

    Args:
        project: the project.
        selector: ``path:GLOB`` of the file, also FILE:ROW; ``text:FILE``; ``email:ADDRESS``; ``id:HEX``; ``source:finetune``.
        norms: norm_ids of documents of the corpus; an example that holds one of their texts is named too.
    """
    kind, value = selector_of(selector)
    passage = passage_of(value) if kind == "text" else value.casefold()
    found: dict[str, Victim] = {}
    for file, example in _all(project):
        places = (file, Path(file).name, example.uid, f"{file}:{example.uid.rpartition(':')[2]}", f"{SOURCE}/{file}")
        texts = texts_of(example)
        for number, text in enumerate(texts):
            place = f"{file}#row={example.uid.rpartition(':')[2]}" + (f"&answer={number + 1}" if len(texts) > 1 else "")
            uid, norm = doc_uid(SOURCE, place), norm_id(text)
            named = (
                (kind == "path" and any(fnmatch.fnmatchcase(one, value) for one in places))
                or (kind == "source" and value == SOURCE)
                or (kind == "id" and uid.startswith(value.lower()))
                or (kind == "text" and passage in " ".join(text.casefold().split()))
                or (kind == "email" and passage in text.casefold())
            )
            copied = norms is not None and any(own in norms for own in norms_of([example])[example.uid])
            if named or copied:
                because = "" if named else ", a copy"
                found[uid] = Victim(uid, norm, SOURCE, place, "for fine-tuning", because, None)
    return list(found.values())


def _all(project: "Project") -> Iterator[tuple[str, Any]]:
    """Every example of every step, with its file as the configuration names it (a file of a folder: below it)."""
    for step in project.settings.finetune.chain():
        for name, path in data_files(project, step):
            for example in read_examples(step, path):
                yield name, example


def data_files(project: "Project", step: "FinetuneStep") -> list[tuple[str, Path]]:
    """The files that a step reads beside the corpus, as (place relative to the project where it can be, path)."""
    if step.data is None:
        return []
    top = project.root / step.data
    files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top] if top.is_file() else []
    root = project.root
    return [(p.relative_to(root).as_posix() if p.is_relative_to(root) else p.as_posix(), p) for p in files]


def read_examples(step: "FinetuneStep", path: Path) -> Sequence[Any]:
    """The examples of a file, as the step's method reads them."""
    if step.method in ("dpo", "ipo"):
        return read_pairs(path).rows
    if step.method == "kto":
        return read_judged(path).rows
    if step.method == "grpo":
        return read_tasks(path).rows
    return told(path)


def _turns(example: Any) -> list[str]:
    if isinstance(example, Told):
        return [_content(message) for message in example.messages]
    answers = (getattr(example, name, ()) for name in ("prompt", "chosen", "rejected"))
    turns = [_content(message) for messages in answers for message in messages]
    answer = getattr(example, "answer", None)
    if isinstance(answer, str):
        return [*turns, answer]
    return turns + [_content(message) for message in answer or ()]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "" if content is None else str(content)

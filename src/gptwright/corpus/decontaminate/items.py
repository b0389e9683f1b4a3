"""Evaluation sets in files to items: an id and the texts that must not be learned.

Of a record with a question the item is the question with each of its right answers; of a conversation what was said; of a text the
text. Passages and contexts that stand beside a question are left out: they are often well-known pages, which are no secret.
"""

import csv
import glob
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from gptwright.core.errors import UserError
from gptwright.corpus.shapes import CHAT_KEYS, TEXT_KEYS, Chat, Fault, read_record, records

_QUESTIONS = ("question", "query", "prompt", "problem", "instruction", "goal", "ctx", "input", "sentence", "stem")
_ANSWERS = ("answers", "answer", "correct_answers", "best_answer", "target", "targets", "output", "response", "completion",
            "solution", "canonical_solution", "label", "answerkey", "gold")  # fmt: skip
_CHOICES = ("choices", "options", "endings")
_IDS = ("id", "task_id", "question_id", "qid", "uid", "idx")
_TEXT_SUFFIXES = (".txt", ".md", ".text")


@dataclass(frozen=True)
class Item:
    """One evaluation item. ``id`` is ``suite#ID`` or ``suite#row=N``; each of ``texts`` is looked for on its own."""

    id: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ItemSet:
    """The items of one file, and rows of which none could be made."""

    name: str
    path: str
    items: tuple[Item, ...]
    faults: tuple[str, ...]


def find_sets(patterns: Sequence[str], root: Path) -> list[Path]:
    """Files that patterns name, each once, in order.

    Raises:
        UserError: a pattern names none.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        places = [Path(p) for p in sorted(glob.glob(str(root / path), recursive=True))]  # an absolute path stays itself
        files = [
            p for place in places for p in (sorted(place.rglob("*")) if place.is_dir() else [place]) if p.is_file()
        ]
        if not files:
            raise UserError(
                f"no evaluation set {pattern!r}",
                where="corpus.decontaminate.sets",
                fix="Name a file or a pattern that exists",
            )
        found += [f for f in files if f not in found]
    return found


def read_sets(paths: Sequence[Path], fields: Sequence[str] = ()) -> list[ItemSet]:
    """Read evaluation sets. Sets of the same file name are told apart by their folder.

    Raises:
        UserError: a file is of an unknown kind, broken, or holds no item.
    """
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.name}" for path in paths]
    return [read_set(path, name, fields) for path, name in zip(paths, names, strict=True)]


def read_set(path: Path, name: str | None = None, fields: Sequence[str] = ()) -> ItemSet:
    """Read one evaluation set.

    Args:
        path: the file.
        name: of the set, for the items' ids; None takes the file's.
        fields: keys whose values make up an item; empty finds question, answers and choices.

    Raises:
        UserError: see ``read_sets``.
    """
    name = name or path.stem
    items: list[Item] = []
    faults: list[str] = []
    ids: set[str] = set()
    try:
        for place, record in _records(path):
            try:
                texts = _texts(record, fields)
            except Fault as error:
                faults.append(f"{place}: {error}")
                continue
            own = next((str(record[k]) for k in _keys(record, _IDS) if isinstance(record[k], str | int)), None)
            key = own if own is not None and own not in ids else place
            ids.add(key)
            items.append(Item(f"{name}#{key}", tuple(dict.fromkeys(t for t in texts if t.strip()))))
    except (OSError, ValueError, csv.Error, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the evaluation set cannot be read: {str(error).splitlines()[0]}", where=str(path)) from error
    if not any(item.texts for item in items):
        why = f" ({faults[0]})" if faults else ""
        raise UserError(
            f"no evaluation item in it{why}", where=str(path), fix="Name the keys: [corpus.decontaminate] fields"
        )
    return ItemSet(name, str(path), tuple(items), tuple(faults))


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Records of a file with their places."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        with open(path, encoding="utf-8-sig") as file:
            yield from ((f"row={n}", json.loads(line)) for n, line in enumerate(file, 1) if line.strip())
    elif suffix in (".json", ".yaml", ".yml"):
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text) if suffix == ".json" else yaml.safe_load(text)
        yield from ((place or "row=1", record) for place, record in records(value))
    elif suffix in (".csv", ".tsv"):
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")
            for n, row in enumerate(reader, 1):
                yield f"row={n}", {key: value for key, value in row.items() if key is not None and value}
    elif suffix == ".parquet":
        n = 0
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    n += 1
                    yield f"row={n}", row
    elif suffix == ".toml":
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("questions")
        yield from ((f"row={n}", row) for n, row in enumerate(rows if isinstance(rows, list) else [], 1))
    elif suffix in _TEXT_SUFFIXES:
        paragraphs = "\n".join(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()).split("\n\n")
        yield from ((f"row={n}", text) for n, text in enumerate((p for p in paragraphs if p.strip()), 1))
    else:
        raise ValueError(f"{suffix or 'no ending'} is not read; use jsonl, json, csv, tsv, parquet, yaml, toml or txt")


def _texts(record: Any, fields: Sequence[str]) -> list[str]:
    """What to look for of one record."""
    if fields:
        if not isinstance(record, dict) or not any(key in record for key in fields):
            raise Fault(f"none of the keys {', '.join(fields)} in it")
        return [" ".join(" ".join(_strings(record[key])) for key in fields if key in record)]
    if isinstance(record, dict) and not any(isinstance(record[k], list) for k in _keys(record, CHAT_KEYS)):
        key = next((k for k in _keys(record, _QUESTIONS) if isinstance(record[k], str) and record[k].strip()), None)
        if (
            key is None and (stem := record.get("question")) and isinstance(stem, dict)
        ):  # {"question": {"stem", "choices"}}
            return _texts({**record, **stem, "question": stem.get("stem", "")}, fields)
        if key is not None and not (key == "prompt" and any(_keys(record, TEXT_KEYS))):
            choices = [s for k in _keys(record, _CHOICES) for s in _strings(record[k])]
            answers = [
                a for k in _keys(record, _ANSWERS) for v in _listed(record[k]) if (a := _answer(v, choices, record))
            ]
            question = record[key]
            if key == "instruction" and isinstance(record.get("input"), str):
                question = f"{question} {record['input']}"
            return [question, *(f"{question} {answer}" for answer in dict.fromkeys(answers))]
    read = read_record(record)
    if not isinstance(read, Chat):
        return [read.text]
    said = [message["content"] for message in read.messages if message["role"] in ("user", "assistant")]
    return [*said, " ".join(said)]


def _keys(record: Any, wanted: Sequence[str]) -> list[str]:
    """Keys of a record that are among the wanted, whatever their case, in the order of the wanted."""
    if not isinstance(record, Mapping):
        return []
    lower = {str(key).lower(): key for key in reversed(list(record))}
    return [lower[key] for key in wanted if key in lower]


def _strings(value: Any) -> list[str]:
    """All texts in a value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return _strings(value["text"]) if "text" in value else [s for v in value.values() for s in _strings(v)]
    if isinstance(value, list | tuple):
        return [s for v in value for s in _strings(v)]
    return [str(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(_strings(value))
    return list(value) if isinstance(value, list | tuple) else [value]


def _answer(value: Any, choices: list[str], record: Any) -> str | None:
    """The words of an answer; a number or letter that points at a choice is that choice."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    if choices:
        labels = next(
            (v["label"] for k in _keys(record, _CHOICES) if isinstance(v := record[k], Mapping) and "label" in v), None
        )
        if isinstance(labels, list) and text in labels and labels.index(text) < len(choices):
            return choices[labels.index(text)]
        if text.isdigit() and text not in choices:
            return choices[int(text)] if int(text) < len(choices) else None
        if len(text) == 1 and text.isalpha() and text not in choices:
            place = ord(text.upper()) - 65
            return choices[place] if 0 <= place < len(choices) else None
    return text or None

"""Own conversations for fine-tuning: OpenAI messages, ShareGPT, Alpaca, prompt and response columns, told apart by their keys.

Every row is read or named in a fault; none disappears.
"""

from dataclasses import dataclass, field
from pathlib import Path

from gptwright.core.errors import UserError
from gptwright.corpus import readers
from gptwright.corpus.shapes import Message
from gptwright.corpus.text import NotText

_SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".parquet",
    ".yml",
    ".yaml",
    ".gz",
    ".zst",
    ".bz2",
    ".xz",
    ".zip",
    ".tar",
    ".tgz",
)
_NO_CHATS = ("text", "markdown", "html", "code", "pdf", "docx", "odt", "epub", "rtf", "mail", "notebook")


@dataclass(frozen=True)
class ChatFile:
    """Conversations that can be trained on, and what is wrong with the rows that cannot ("file:line: what. fix")."""

    conversations: list[list[Message]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_chats(path: Path) -> ChatFile:
    """Read the conversations of a file, or of all files of a folder.

    Args:
        path: JSONL, JSON, CSV, YAML or parquet, told by content and suffix.

    Returns:
        Conversations of messages with the roles system, user, assistant and tool, each with a turn of the assistant;
        and the faults of rows, at most the first 1000 of a file.

    Raises:
        UserError: there is no such file, or it is of no kind that holds conversations.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
        if not files:
            raise UserError(
                "no conversations in this folder", where=str(path), fix="Put JSONL, JSON, CSV or parquet files into it"
            )
        read = [_read_file(file) for file in files]
        return ChatFile([c for one in read for c in one.conversations], [f for one in read for f in one.faults])
    if not path.exists():
        raise UserError(
            "no such file", where=str(path), fix="Name a JSONL, JSON, CSV or parquet file with conversations"
        )
    return _read_file(path)


def _read_file(path: Path) -> ChatFile:
    chats = ChatFile()
    try:
        if path.stat().st_size == 0:
            raise UserError("the file is empty", where=str(path), fix="Write one conversation a line into it")
        _read(readers.read_file(path), str(path), chats)
    except (NotText, readers.Skip) as error:
        raise UserError(str(error), where=str(path), fix=_FIX) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"not valid {error.encoding} although its first bytes say so: {error.reason}",
            where=str(path),
            fix="Save it as UTF-8",
        ) from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return chats


def _read(reading: readers.Reading, place: str, chats: ChatFile) -> None:
    """Take the conversations of a file, or of the files in an archive."""
    if reading.members is not None and reading.kind in ("zip", "tar"):
        for member in reading.members:
            inner = f"{place}!/{member.name}"
            try:
                opened = readers.read_blob(member)
                if opened.kind not in _NO_CHATS:  # a readme beside them is no fault
                    _read(opened, inner, chats)
            except readers.Skip:
                continue
            except NotText as error:
                chats.faults.append(f"{inner}: {error}.")
        return
    if reading.kind in _NO_CHATS:
        raise UserError(f"this is {reading.kind}, not conversations", where=place, fix=_FIX)
    for record in reading.records:
        fault = _check(record)
        if fault:
            reading.fault(record.suffix.replace("=", " ") or "the file", record.line, fault)
        elif record.messages is not None:
            chats.conversations.append(record.messages)
    for found in reading.faults:
        where = f"{place}:{found.line}" if found.line is not None else f"{place}: {found.place}"
        chats.faults.append(f"{where}: {found.what.rstrip('.')}.")
    if reading.n_faults > len(reading.faults):
        chats.faults.append(f"{place}: {reading.n_faults - len(reading.faults)} more rows have faults.")


_FIX = 'Write one JSON object a line: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


def _check(record: readers.Record) -> str | None:
    if record.messages is None:
        return "a text, not a conversation. Use messages, or prompt and response"
    if not any(message["role"] == "assistant" for message in record.messages):
        return "no turn of the assistant, so nothing to learn. Add one, or remove the row"
    if record.messages[0]["role"] == "assistant" and len(record.messages) == 1:
        return "the assistant speaks to nobody. Add what was asked, or remove the row"
    return None

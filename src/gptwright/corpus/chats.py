"""Own conversations for fine-tuning: OpenAI messages, ShareGPT, Alpaca, prompt and response columns, told apart by their keys.

Every row is read or named in a fault; none disappears.
"""

from dataclasses import dataclass, field
from pathlib import Path

from gptwright.core.errors import UserError
from gptwright.corpus import readers
from gptwright.corpus.shapes import Message
from gptwright.corpus.text import NotText

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".yml", ".yaml")


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
        reading = readers.read_file(path)
        if reading.kind in ("text", "markdown", "html"):
            raise UserError(f"this is {reading.kind}, not conversations", where=str(path), fix=_FIX)
        for record in reading.records:
            fault = _check(record)
            if fault:
                reading.fault(record.suffix.replace("=", " ") or "the file", record.line, fault)
            elif record.messages is not None:
                chats.conversations.append(record.messages)
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
    for found in reading.faults:
        place = f"{path}:{found.line}" if found.line is not None else f"{path}: {found.place}"
        chats.faults.append(f"{place}: {found.what.rstrip('.')}.")
    if reading.n_faults > len(reading.faults):
        chats.faults.append(f"{path}: {reading.n_faults - len(reading.faults)} more rows have faults.")
    return chats


_FIX = 'Write one JSON object a line: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


def _check(record: readers.Record) -> str | None:
    if record.messages is None:
        return "a text, not a conversation. Use messages, or prompt and response"
    if not any(message["role"] == "assistant" for message in record.messages):
        return "no turn of the assistant, so nothing to learn. Add one, or remove the row"
    if record.messages[0]["role"] == "assistant" and len(record.messages) == 1:
        return "the assistant speaks to nobody. Add what was asked, or remove the row"
    return None

"""The shapes in which people keep conversations and texts in JSON, YAML, CSV and parquet, told by their keys and values.

A record becomes a ``Chat`` or a plain text; nothing here knows a data set by name.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gptwright.core.hashing import norm_id

TEXT_KEYS = (
    "text",
    "content",
    "body",
    "document",
    "article",
    "passage",
    "story",
    "raw_content",
    "page_content",
    "abstract",
)
TITLE_KEYS = ("title", "headline", "name")
URL_KEYS = ("url", "link", "source_url")
LANG_KEYS = ("lang", "language")
CHAT_KEYS = ("messages", "conversations", "conversation", "dialog", "dialogue", "dialogs", "turns", "utterances")
PROMPT_KEYS = ("prompt", "instruction", "question", "query", "input", "user", "human", "problem", "request")
REPLY_KEYS = ("response", "output", "answer", "completion", "reply", "assistant", "chosen", "solution", "gpt", "bot")
_ROLE_KEYS = ("role", "from", "speaker", "sender", "author", "user", "name")
_SAID_KEYS = ("content", "value", "text", "message", "utterance", "body")
_TOPIC_KEYS = ("prompt", "topic")
# What rows say of their texts beside them; ``metadata`` is where datatrove and dolma keep it.
FACT_KEYS = (
    "license",
    "licence",
    "license_type",
    "date",
    "created",
    "published",
    "published_at",
    "timestamp",
    "author",
    "metadata",
)

ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "person", "client", "visitor", "student"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "bot", "ai", "model", "chatgpt", "bing", "chatbot", "agent", "teacher"), "assistant"
    ),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}

Message = dict[str, str]

_GREETING = re.compile(
    r"\W*(hi+|hello+|hey+|yo|sup|howdy|greetings|what'?s up|whats up|how are you|how'?s it going|good (morning|evening|afternoon)"
    r"|any ?(one|body)|are you|is any)\b",
    re.IGNORECASE,
)
_ALONE = re.compile(
    r"\b(any ?(one|body)|nobody|no one|(this|these) chats?|prompts?|repl(y|ies|ying)|respon[ds]\w*|typing|glitch\w*|still there)\b",
    re.IGNORECASE,
)


class Fault(Exception):
    """A record that cannot be read; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Chat:
    """A conversation: messages with normal role names, texts cleaned, consecutive ones of one speaker merged."""

    messages: list[Message]


@dataclass(frozen=True)
class Plain:
    """A record with text."""

    text: str
    title: str | None = None
    url: str | None = None
    lang: str | None = None


def clean(text: str) -> str:
    """A turn without white space at its ends and line ends. Indentation stays: it may be code."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def merge(messages: list[Message]) -> list[Message]:
    """Drop empty turns and join what one speaker says in a row, line by line."""
    merged: list[Message] = []
    for message in messages:
        content = clean(message["content"])
        if not content:
            continue
        if merged and merged[-1]["role"] == message["role"] and message["role"] in ("user", "assistant"):
            if merged[-1]["content"].rpartition("\n")[2] != content:  # else it was sent twice
                merged[-1]["content"] += "\n" + content
        else:
            merged.append({"role": message["role"], "content": content})
    return merged


def records(value: Any) -> Iterator[tuple[str, Any]]:
    """Walk a JSON or YAML value down to its records, with a locator suffix for each: ``row=3`` or ``key=name``."""
    if isinstance(value, list):
        if _is_chat_list(value):
            yield "", value  # the file is one conversation
            return
        for number, record in enumerate(value, 1):
            yield f"row={number}", record
    elif isinstance(value, dict):
        holder = next((k for k, v in value.items() if isinstance(v, list) and _holds_records(k, v)), None)
        if holder is not None:
            for number, record in enumerate(value[holder], 1):
                # A lone text among conversations (a dash was forgotten) is a conversation of one turn.
                yield f"row={number}", [record] if holder in CHAT_KEYS and isinstance(record, str) else record
        elif value and all(isinstance(v, dict) for v in value.values()) and not readable(value):
            for key, record in value.items():
                yield f"key={key}", record
        else:
            yield "", value


def _holds_records(key: str, items: list[Any]) -> bool:
    """A list under a key is a list of records, unless it is itself a conversation."""
    if not items or _is_chat_list(items):
        return False
    if key in CHAT_KEYS:
        # strings: one conversation; lists of {text, sender}: turns of one conversation; lists of strings: many conversations
        return isinstance(items[0], list) and bool(items[0]) and isinstance(items[0][0], str)
    return key in ("data", "rows", "examples", "items", "train", "records", "documents") and isinstance(
        items[0], dict | list
    )


def _is_chat_list(items: list[Any]) -> bool:
    return (
        bool(items)
        and all(isinstance(item, dict) for item in items)
        and all(_said(item)[0] is not None for item in items[:3])
    )


@lru_cache(1024)
def _is_plain(keys: tuple[Any, ...]) -> bool:
    """Whether of an object with these keys only "text" counts, so that nothing else of it needs to be looked at."""
    telling = {*CHAT_KEYS, *PROMPT_KEYS, *REPLY_KEYS, *TITLE_KEYS, *URL_KEYS, *LANG_KEYS}
    return all(
        isinstance(key, str) and key.lower() not in telling and (key == "text" or key.lower() != "text") for key in keys
    )


def is_of_use(column: str) -> bool:
    """Whether a column's name is one that records are read by."""
    known = (
        *TEXT_KEYS,
        *TITLE_KEYS,
        *URL_KEYS,
        *LANG_KEYS,
        *CHAT_KEYS,
        *PROMPT_KEYS,
        *REPLY_KEYS,
        *_TOPIC_KEYS,
        *FACT_KEYS,
    )
    return column.lower() in {*known, "system", "system_prompt"}


def readable(record: Mapping[str, Any]) -> bool:
    """Whether an object with these keys, or a table with these columns, holds a text or a conversation."""
    keys = {str(key).lower() for key in record}
    return bool(keys & {*TEXT_KEYS, *CHAT_KEYS}) or bool(keys & set(PROMPT_KEYS) and keys & set(REPLY_KEYS))


def read_record(record: Any) -> Chat | Plain:
    """A conversation or a text out of one record.

    Raises:
        Fault: it is neither, or broken.
    """
    if isinstance(record, str):
        return Plain(record)
    if type(record) is dict and (text := record.get("text")).__class__ is str and _is_plain(tuple(record)):
        return Plain(text)
    if isinstance(record, list):
        return Chat(merge(_turns(record)))
    if not isinstance(record, dict):
        raise Fault(f"expected an object, found {_kind(record)}. Write one JSON object a line")
    lower = {str(key).lower(): value for key, value in record.items()}
    for key in CHAT_KEYS:
        turns = lower.get(key)
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            turns = _parse(turns, key)
        if isinstance(turns, list):
            messages = _turns(turns, next((lower[k] for k in _TOPIC_KEYS if isinstance(lower.get(k), str)), None))
            system = lower.get("system") or lower.get("system_prompt")
            if isinstance(system, str) and system.strip() and (not messages or messages[0]["role"] != "system"):
                messages.insert(0, {"role": "system", "content": system})
            return Chat(merge(messages))
    if (pair := _pair(lower)) is not None:
        return Chat(merge(pair))
    for key in TEXT_KEYS:
        if isinstance(lower.get(key), str):
            return Plain(lower[key], _first(lower, TITLE_KEYS), _first(lower, URL_KEYS), _first(lower, LANG_KEYS))
    found = ", ".join(list(map(str, record))[:8]) or "none"
    raise Fault(f"no text or conversation in it; its keys are {found}. Name one text, or messages")


def _pair(lower: Mapping[str, Any]) -> list[Message] | None:
    """Alpaca (instruction, input, output) and its many cousins."""
    reply = next((key for key in REPLY_KEYS if key in lower), None)
    prompt = next((key for key in PROMPT_KEYS if key in lower), None)
    if reply is None or prompt is None:
        return None
    for key in (prompt, reply):
        if not isinstance(lower[key], str):
            raise Fault(f"{key} is {_kind(lower[key])}, not a text")
    asked = lower[prompt]
    if prompt == "instruction" and isinstance(lower.get("input"), str) and lower["input"].strip():
        asked = f"{asked}\n\n{lower['input']}"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": lower[reply]}]
    system = lower.get("system") or lower.get("system_prompt")
    if isinstance(system, str) and system.strip():
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _turns(turns: list[Any], topic: str | None = None) -> list[Message]:
    if turns and all(isinstance(turn, list) for turn in turns):  # turns that hold several messages each
        turns = [message for turn in turns for message in turn]
    if all(isinstance(turn, str) for turn in turns):
        return [{"role": ("user", "assistant")[i % 2], "content": html.unescape(turn)} for i, turn in enumerate(turns)]
    pairs: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise Fault(f"message {number} is {_kind(turn)}. Write objects with role and content")
        who, said = _said(turn)
        if who is None or said is None:
            keys = ", ".join(map(str, turn)) or "none"
            raise Fault(f"message {number} has no role or no content (its keys are {keys}). Give it both")
        pairs.append((who, said))
    names = list(dict.fromkeys(who for who, _ in pairs))
    if all(name.lower() in ROLES for name in names):
        return [{"role": ROLES[who.lower()], "content": said} for who, said in pairs]
    strangers = [name for name in names if name.lower() not in ROLES]
    if len(strangers) < len(names):
        raise Fault(f"unknown role {strangers[0]!r}. Use system, user, assistant or tool")
    if len(names) > 2:
        raise Fault(f"{len(names)} people talk in it. Only conversations of two can be read")
    return _two_people(pairs, names, topic)


def _two_people(pairs: list[tuple[str, str]], names: list[str], topic: str | None) -> list[Message]:
    """People instead of roles: who speaks first is the user. A topic that was put to both opens the conversation as the user's
    question when what follows reads as an answer; then the first speaker is the one who answers.
    What people said to each other on some page comes with HTML entities; what was written for roles may be about HTML."""
    roles = ["user", "assistant"]
    messages: list[Message] = []
    opening = " ".join(said for who, said in pairs[:3] if who == names[0]) if pairs else ""
    echo = topic is not None and norm_id(topic) == norm_id(opening)
    if topic and topic.strip() and not echo and not _GREETING.match(opening) and len(opening.split()) >= 4:
        messages.append({"role": "user", "content": topic})
        roles.reverse()
    if len(names) == 1:  # nobody answered: what is left of them waiting for someone is no text
        pairs = [(who, said) for who, said in pairs if not _GREETING.match(said) and not _ALONE.search(said)]
    return messages + [{"role": roles[names.index(who)], "content": html.unescape(said)} for who, said in pairs]


def _said(turn: Mapping[str, Any]) -> tuple[str | None, str | None]:
    who = next((turn[key] for key in _ROLE_KEYS if isinstance(turn.get(key), str)), None)
    said = next((turn[key] for key in _SAID_KEYS if key in turn and turn[key] is not None), None)
    if isinstance(said, list):  # OpenAI's parts: only those of text
        texts = [part.get("text") if isinstance(part, dict) else part for part in said]
        said = "\n".join(text for text in texts if isinstance(text, str))
    if said is None and "tool_calls" in turn:
        said = json.dumps(turn["tool_calls"], ensure_ascii=False)
    return who, said if isinstance(said, str) else None


def _parse(text: str, key: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Fault(f"{key} looks like JSON and is not: {error}") from error


def _first(lower: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((lower[key] for key in keys if isinstance(lower.get(key), str) and lower[key].strip()), None)


def _kind(value: Any) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")

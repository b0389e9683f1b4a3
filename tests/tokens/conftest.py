"""A small real tokenizer and small real texts (Python's own help topics), made once a session."""

from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer


@dataclass
class Doc:
    """What corpus.documents yields, as far as tokens care."""

    uid: str
    text: str
    messages: list[dict[str, Any]] | None = None


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [topics[name] for name in sorted(topics)][:60]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(texts, 1024, tmp_path_factory.mktemp("tokenizer") / "tok")


@pytest.fixture(scope="session")
def tokenizer_dir(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def docs(texts: list[str]) -> list[Doc]:
    chat = [{"role": "user", "content": "hello, how are you?"}, {"role": "assistant", "content": "fine, thanks"}]
    found = [Doc(f"{index:032x}", text) for index, text in enumerate(texts[:20])]
    return [*found, Doc("f" * 32, "ignored", chat)]

"""The starter's sources, as the packages ship them: conversations that read well, with personal data masked."""

import importlib.metadata
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from gptwright.core.ledger import Ledger
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.view import documents

SOURCES = {
    "chitchat": {"uri": "package:chitchat-dataset", "tidy": True},
    "chatterbot": {
        "uri": "package:chatterbot-corpus/data/english/{ai,botprofile,conversations,food,gossip,greetings,health,history,humor,"
        "literature,money,movies,politics,psychology,science,tech_support,trivia}.yml",
        "tidy": True,
        "license": "BSD-3-Clause",
    },
}


def installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(
    not installed("chitchat-dataset") or not installed("chatterbot-corpus"), reason="pip install gptwright[starter]"
)
def test_starter_when_built_then_conversations_are_clean_and_fast_to_get(tmp_path: Path) -> None:
    config = CorpusConfig.model_validate({"sources": SOURCES})
    with Ledger.open(tmp_path / "work" / "ledger.sqlite") as ledger:
        before = time.process_time()
        result = build_corpus(config, root=tmp_path, out=tmp_path / "work" / "corpus", ledger=ledger, workers=1)
        assert time.process_time() - before < 15
        assert {row.name: row.license for row in ledger.sources()} == {"chitchat": "MIT", "chatterbot": "BSD-3-Clause"}
    own = result.meta["sources"]
    assert own["chitchat"]["kept"] > 5_000
    assert own["chatterbot"]["kept"] > 700
    assert result.bytes > 12_000_000
    assert own["chitchat"]["pii"]["EMAIL"] == 2
    assert result.meta["heldout"]["bytes"] >= 64 << 10
    endings: Counter[bool] = Counter()
    for document in documents(tmp_path / "work" / "corpus"):
        assert document.messages is not None
        assert len(document.messages) >= 2
        roles = [message["role"] for message in document.messages]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
        assert "\n".join(message["content"] for message in document.messages) == document.text
        assert not re.search(r"&(amp|lt|gt|quot|#\d+);|[\w.]+@[\w.]+\.(com|edu|org)", document.text)
        for message in document.messages:
            assert message["content"].strip()
            assert message["content"] == message["content"].strip()
            endings[message["content"][-1] in ".!?"] += 1
    assert endings[True] > 0.9 * endings.total()

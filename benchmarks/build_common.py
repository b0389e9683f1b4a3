"""Shared by the benchmarks of whole builds: real text out of installed packages as one JSONL, and our way from it to token shards."""

import ast
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from signals_common import PART_CHARS, documents

SHARE_OF_CODE = 0.2  # of the text; the rest is pages, notes, prose and chat, which such filters are made for
VOCABULARY = 16_384
RULES = ("gopher_repetition@datatrove", "gopher_quality@datatrove", "c4@datatrove", "fineweb@datatrove")


def _docstrings(files: Iterable[Path]) -> Iterable[str]:
    for path in files:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, RecursionError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        text = "\n\n".join(note for n in ast.walk(tree) if isinstance(n, kinds) and (note := ast.get_docstring(n)))
        if len(text) > 300:
            yield text


def _parts(text: str) -> Iterable[str]:
    """A text in parts of some thousand characters, cut at line ends."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\0", ""))
    lines: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size > PART_CHARS:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def write_corpus(path: Path, size_bytes: int) -> int:
    """Write about so many bytes of different real texts as JSONL, in a seeded order; the same for the same machine.

    Returns:
        Bytes of text.
    """
    kinds = documents()
    places = {Path(sysconfig.get_paths()["purelib"]), *(Path(p) for p in sys.path if p.endswith("-packages"))}
    site = sorted({file for place in places for file in place.rglob("*.py")})
    random.Random(3).shuffle(site)
    code, other = list(kinds.pop("code")), [text for kind in kinds.values() for text in kind]
    seen: set[bytes] = set()

    def take(texts: Iterable[str], most: float) -> tuple[list[str], float]:
        out, total = [], 0
        for text in texts:
            key = blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=12).digest()
            if text.strip() and key not in seen and total < most:
                seen.add(key)
                out.append(text.encode("utf-8", "replace").decode())
                total += len(out[-1].encode())
            if total >= most:
                break
        return out, total

    more = (part for text in _docstrings(site) for part in _parts(text))
    random.Random(5).shuffle(other)
    talk, got = take((text for texts in (other, more) for text in texts), (1 - SHARE_OF_CODE) * size_bytes)
    programs = (part for file in site for part in _parts(file.read_text(encoding="utf-8", errors="replace")))
    made, _ = take((text for texts in (code, programs) for text in texts), size_bytes - got)
    texts = talk + made
    random.Random(4).shuffle(texts)
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
    return sum(len(text.encode()) for text in texts)


def head(source: Path, target: Path, size_bytes: int) -> int:
    """The first lines of a JSONL up to so many bytes of text. Returns the bytes of text."""
    total = 0
    with open(source, encoding="utf-8") as file, open(target, "w", encoding="utf-8") as out:
        for line in file:
            total += len(json.loads(line)["text"].encode())
            out.write(line)
            if total >= size_bytes:
                break
    return total


def train(source: Path, folder: Path) -> None:
    """The tokenizer that both sides use, of the first 8 MB; counted on neither side."""
    from gptwright.tokens.tokenizer import train_tokenizer

    def texts() -> Iterable[str]:
        left = 8 << 20
        with open(source, encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                left -= len(text)
                if left < 0:
                    return
                yield text

    train_tokenizer(texts(), VOCABULARY, folder)


def ours(jsonl: Path, root: Path, tokenizer: Path, *, everything: bool = True) -> dict[str, Any]:
    """The whole way in this process: a project whose one source is the JSONL, built and encoded into shards.

    Args:
        jsonl: the texts.
        root: an empty folder for the project.
        tokenizer: its folder.
        everything: as a new project has it. False leaves out boilerplate lines and repeated spans, and masks nothing; personal data are
            counted all the same.
    """
    from gptwright.core.ledger import Ledger
    from gptwright.corpus.build import build_corpus
    from gptwright.corpus.config import CorpusConfig
    from gptwright.corpus.view import documents as kept
    from gptwright.tokens.shards import write_tokens
    from gptwright.tokens.tokenizer import Tokenizer

    data = root / "data"
    data.mkdir(parents=True)
    os.link(jsonl, data / "texts.jsonl")
    (root / "recipe.toml").write_text(f"rules = {json.dumps(list(RULES))}\n")
    source: dict[str, Any] = {"uri": "data"} | ({} if everything else {"pii": "keep"})
    config = CorpusConfig.model_validate(
        {
            "sources": {"own": source},
            "recipe": "recipe.toml",
            "dedup": {} if everything else {"lines": False, "spans": False},
        }
    )
    out = root / "work" / "corpus"
    with Ledger.open(root / "work" / "ledger.sqlite") as ledger:
        result = build_corpus(config, root=root, out=out, ledger=ledger, workers=1)
    built = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    tokens = write_tokens(kept(out, "train"), Tokenizer.load(tokenizer), root / "work" / "tokens" / "all")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {
        "documents": result.documents,
        "tokens": tokens.tokens,
        "hash": result.hash,
        "build_s": built,
        "peak_mb": peak,
    }


def measured(command: list[str]) -> tuple[dict[str, Any], float]:
    """Run a command that prints one JSON object last; with it, CPU seconds of it and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        stderr=sys.stderr if "-v" in sys.argv else subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]), cpu

"""Real text at hand for the benchmarks of signals: pages, prose, program text and chat out of what is installed, in a seeded order."""

import json
import os
import platform
import random
import sys
import sysconfig
from pathlib import Path

PART_CHARS = 6000


def _pages() -> list[str]:
    from resiliparse.extract.html2text import extract_plain_text

    roots = [Path("/usr/share/doc"), Path(sysconfig.get_paths()["purelib"])]
    files = sorted(
        (p for root in roots for p in root.rglob("*.html") if p.is_file() and 2000 < p.stat().st_size < 400_000),
        key=str,
    )[:1500]
    return [extract_plain_text(p.read_text(errors="replace"), main_content=True) for p in files]


def _texts(suffixes: tuple[str, ...], roots: list[Path], most: int) -> list[str]:
    files = sorted(
        (
            p
            for root in roots
            for s in suffixes
            for p in root.rglob(f"*{s}")
            if p.is_file() and 500 < p.stat().st_size < 500_000
        ),
        key=str,
    )
    random.Random(0).shuffle(files)
    return [p.read_text(errors="replace") for p in files[:most]]


def _chats() -> list[str]:
    try:
        import chitchat_dataset
    except ImportError:
        return []
    talks = chitchat_dataset.Dataset().values()
    return ["\n".join(m["text"] for group in talk["messages"] for m in group) for talk in talks]


def _prose() -> list[str]:
    import ast

    stdlib = Path(sysconfig.get_paths()["stdlib"])
    found = []
    from pydoc_data.topics import topics

    found += [topics[name] for name in sorted(topics)]
    for path in sorted([*stdlib.glob("*.py"), *Path(sysconfig.get_paths()["purelib"]).glob("*/*.py")])[:3000]:
        try:
            tree = ast.parse(path.read_text(errors="replace"))
        except (SyntaxError, ValueError):
            continue
        notes = [
            ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        text = "\n\n".join(note for note in notes if note)
        if len(text) > 300:
            found.append(text)
    return found


def documents() -> dict[str, list[str]]:
    """Documents by kind, each kind in a seeded order; long ones are cut into parts at line ends."""
    import unicodedata

    stdlib, site = Path(sysconfig.get_paths()["stdlib"]), Path(sysconfig.get_paths()["purelib"])
    kinds = {
        "web": _pages(),
        "notes": _texts((".md", ".rst", ".txt"), [Path("/usr/share/doc"), site], 1500),
        "prose": _prose(),
        "code": _texts((".py",), [stdlib], 1500),
        "chat": _chats(),
    }
    out = {}
    for name, texts in kinds.items():
        parts = []
        for text in texts:
            text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\0", ""))
            while text.strip():
                cut = text.rfind("\n", 0, PART_CHARS) + 1 if len(text) > PART_CHARS else 0
                part, text = (text[:cut], text[cut:]) if cut else (text[: 4 * PART_CHARS], text[4 * PART_CHARS :])
                part = part.strip("\n").rstrip()
                if part:
                    parts.append(part)
        random.Random(1).shuffle(parts)
        out[name] = parts
    return out


def mixed(size_bytes: int) -> list[str]:
    """About so many bytes of all kinds in turn, again from the start when they are used up: repeats are other documents to a filter."""
    kinds = documents()
    texts = [text for kind in ("web", "notes", "prose", "code", "chat") for text in kinds[kind]]
    random.Random(2).shuffle(texts)
    out: list[str] = []
    total = 0
    while total < size_bytes:
        for text in texts:
            out.append(text)
            total += len(text.encode())
            if total >= size_bytes:
                break
    return out


def one_core() -> None:
    """Keep this process and what it starts on one core and one thread."""
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "ARROW_NUM_THREADS",
    ):
        os.environ[name] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})


def machine() -> str:
    """The processor, for the result."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{name}, one core, Python {platform.python_version()}"


def show(result: dict[str, object]) -> None:
    """One JSON object with ``--json``, else a table."""
    if "--json" in sys.argv:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value}")


def peer_filters() -> dict[str, object]:
    """datatrove's filters by the name of our set of rules, with their defaults."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return {
        "gopher_quality@datatrove": GopherQualityFilter(),
        "gopher_repetition@datatrove": GopherRepetitionFilter(),
        "c4@datatrove": C4QualityFilter(),
        "fineweb@datatrove": FineWebQualityFilter(),
    }


def peer_decision(one: object, text: str) -> tuple[bool, str]:
    """Whether datatrove keeps a text, and its reason. Its filters divide by the number of words and lines: where there are none, it drops."""
    from datatrove.data import Document

    try:
        answer = one.filter(Document(text=text, id="0"))  # type: ignore[attr-defined]
    except (ZeroDivisionError, AssertionError) as error:
        return False, type(error).__name__
    return (bool(answer[0]), str(answer[1])) if isinstance(answer, tuple) else (bool(answer), "")

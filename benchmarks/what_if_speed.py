"""How long it takes to ask "what if": 100,000 documents decided anew under another threshold. No peer is needed.

    python benchmarks/what_if_speed.py [--json] [--documents 100000]

The documents' numbers are random, in the shape a build leaves them: every signal that the recipe asks for, one copy in ten.
"""

import argparse
import json
import platform
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptwright.core.files import write_json
from gptwright.corpus import tables
from gptwright.corpus.decide import Part, decide, publish
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.signals import SCHEMA
from gptwright.corpus.whatif import what_if

LIMIT_S = 2.0
SOURCES = ("books", "forum", "notes", "web")


def ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    """16-byte ids of numbers."""
    return pa.array([blake2b(f"{prefix}{n}".encode(), digest_size=16).digest() for n in numbers.tolist()], tables.ID)


def make_corpus(folder: Path, documents: int, recipe: Recipe, seed: int = 0) -> None:
    """A decided corpus of random numbers, one part a source."""
    random = np.random.default_rng(seed)
    each = documents // len(SOURCES)
    parts = []
    for number, source in enumerate(SOURCES):
        texts = random.integers(0, documents, each)
        texts[random.random(each) < 0.9] += documents * (number + 1) * 10
        uid, text = ids(source, np.arange(each)), ids("text", texts)
        docs = {f.name: pa.nulls(each, f.type) for f in tables.DOCS} | {
            "doc_uid": uid, "content_id": text, "norm_id": text, "split_id": text,
            "text": pa.array([f"text {n}" for n in texts.tolist()], pa.large_string()),
            "source": pa.array([source] * each), "locator": pa.array([f"{n}.txt" for n in range(each)]),
        }  # fmt: skip
        signals = {name: random.random(each, np.float32) for name in SCHEMA.names if name != "lang"}
        for rule in recipe.document_rules:
            # One document in forty fails a rule, so that most of them hang on the one that is moved.
            beyond = random.random(each, np.float32) * np.float32(40 / 39)
            signals[rule.signal] = np.float32(rule.threshold) * (beyond if rule.op[0] == ">" else 2 - beyond)
        signals = {name: pa.array(values) for name, values in signals.items()}
        signals["n_turns"] = pa.nulls(each, pa.int32())
        signals["n_chars"] = pa.array(random.integers(5, 90_000, each))
        signals["n_bytes_edited"] = signals["n_chars"]
        signals["edit_id"] = text
        signals["lang"] = pa.array(random.choice(["en", "de", "fr", "und"], each).tolist())
        signals["pii_email"] = pa.array(random.integers(0, 2, each).astype(np.int32))
        signals["pii_drop"] = pa.array(np.zeros(each, bool))
        docs_path, signals_path = (tables.part_path(folder, table, number) for table in ("docs", "signals"))
        tables.write_table(docs_path, pa.table(docs).select(tables.DOCS.names).cast(tables.DOCS))
        tables.write_table(signals_path, pa.table(signals))
        parts.append(Part(docs_path, signals_path, source))
    publish(decide(parts, recipe, 0.01, None, work=folder / "decide"), folder)
    write_json(folder / tables.MANIFEST, {"format": 1, "hash": "b2:0", "parts": len(parts), "meta": {}})


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--recipe", default="fineweb")
    args = parser.parse_args()
    recipe = Recipe.load(args.recipe)
    rule = recipe.document_rules[-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        make_corpus(folder, args.documents, recipe)
        made = time.process_time() - started
        wall = []
        for step in range(3):  # the first reads the files cold
            started = time.perf_counter()
            change = what_if(folder, {rule.id: rule.threshold * (1.1 + step / 10)})
            wall.append(time.perf_counter() - started)
    moved = sum(source.gained.documents + source.lost.documents for source in change.sources.values())
    seconds = max(wall)
    answer = {
        "name": "what_if_speed",
        "ours": round(seconds, 3),
        "peer": f"the limit of {LIMIT_S:g} s for 100,000 documents",
        "theirs": LIMIT_S * args.documents / 100_000,
        "unit": "s (slowest of three)",
        "ratio": round(LIMIT_S * args.documents / 100_000 / seconds, 2),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}",
        "documents": args.documents,
        "rules": len(recipe.document_rules),
        "changed_documents": moved,
    }
    if args.json:
        print(json.dumps(answer))
        return
    print(
        f"{args.documents:,} documents, {len(recipe.document_rules)} rules of {args.recipe}; made in {made:.1f} CPU s"
    )
    print(
        f"what if {rule.id} were {rule.threshold * 1.3:g}: {', '.join(f'{s:.3f} s' for s in wall)} ({moved:,} documents change sides)"
    )
    print(
        f"{seconds * 1e6 / args.documents:.1f} microseconds a document; limit {LIMIT_S:g} s for 100,000: {answer['ratio']} times faster"
    )


if __name__ == "__main__":
    main()

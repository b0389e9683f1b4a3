"""Signals and decisions against datatrove 0.10's Gopher quality, Gopher repetition, C4 and FineWeb filters: same text, one core, CPU time.

Ours measures every signal, language included, and evaluates the four sets of rules; datatrove's filters run one after another on each
document and stop at the first that drops it, as in its pipelines (with ``--all`` every filter runs on every document, which is what ours
decides). datatrove sees a
sample of the documents, since the whole would take minutes; its speed is per byte of that sample.
"""

import importlib.metadata
import sys
import time
import warnings
from typing import Any

from signals_common import machine, mixed, one_core, peer_decision, peer_filters, show

one_core()

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from gptwright.corpus.recipes import Recipe, rule_sets  # noqa: E402
from gptwright.corpus.recipes.evaluate import evaluate  # noqa: E402
from gptwright.corpus.signals import measure  # noqa: E402

SIZE_BYTES = 100 << 20
PEER_SECONDS = 60.0


def ours(texts: list[str]) -> tuple[float, float]:
    """CPU seconds of signals, and of decisions."""
    array = pa.array(texts, pa.large_string())
    rules = tuple(rule for name in peer_filters() for rule in rule_sets()[name] if rule.edit is None)
    recipe = Recipe("all", rules)
    begin = time.process_time()
    signals = measure(array)
    middle = time.process_time()
    evaluate(recipe, signals)
    return middle - begin, time.process_time() - middle


def same_work(texts: list[str]) -> float:
    """CPU seconds of the kernel alone: all signals but language and compressed size, which those filters have no use for."""
    from gptwright.corpus.signals.kernel import N_COLUMNS, look_at_all
    from gptwright.corpus.signals.measure import buffers
    from gptwright.corpus.signals.room import addresses, make_room

    array = pa.array(texts, pa.large_string())
    begin = time.process_time()
    for data, offsets in buffers(array):
        room = make_room(int((offsets[1:] - offsets[:-1]).max()))
        look_at_all(
            data, offsets, addresses(room), np.empty((len(offsets) - 1, N_COLUMNS)), 0, np.empty((0, 3), np.int64)
        )
    return time.process_time() - begin


def theirs(texts: list[str], seconds: float, every: bool) -> tuple[float, int]:
    """CPU seconds and bytes of as many documents as fit in the time."""
    from datatrove.data import Document

    peers = list(peer_filters().values())
    for text in texts[:20]:  # their tokenizer loads at first use
        for peer in peers:
            peer_decision(peer, text)
    begin, done = time.process_time(), 0
    for text in texts:
        document = Document(text=text, id="0")
        for peer in peers:
            try:
                answer = peer.filter(document)  # type: ignore[attr-defined]
            except (ZeroDivisionError, AssertionError):
                answer = False
            if not every and answer is not True:
                break
        done += len(text.encode())
        if time.process_time() - begin > seconds:
            break
    return time.process_time() - begin, done


def main() -> None:
    warnings.simplefilter("ignore")
    size = int(next((float(a.partition("=")[2]) * 2**20 for a in sys.argv if a.startswith("--mb=")), SIZE_BYTES))
    seconds = next((float(a.partition("=")[2]) for a in sys.argv if a.startswith("--seconds=")), PEER_SECONDS)
    texts = mixed(size)
    total = sum(len(text.encode()) for text in texts)
    begin = time.process_time()
    measure(pa.array(["warm"], pa.large_string()))
    warm = time.process_time() - begin
    linear = {}
    for share in (16, 4, 1):
        part = texts[: len(texts) // share]
        spent = ours(part)
        linear[share] = sum(len(t.encode()) for t in part) / 1e6 / sum(spent)
    signals_s, decide_s = spent
    kernel_s = same_work(texts)
    peer_s, peer_bytes = theirs(texts, seconds, every="--all" in sys.argv)
    speed, peer_speed = total / 1e6 / (signals_s + decide_s), peer_bytes / 1e6 / peer_s
    result: dict[str, Any] = {
        "name": "signals_vs_datatrove",
        "ours": speed,
        "peer": f"datatrove {importlib.metadata.version('datatrove')}",
        "theirs": peer_speed,
        "unit": "MB a CPU second, one core",
        "ratio": speed / peer_speed,
        "bar": 40.0,
        "ratio_without_language_and_compression": total / 1e6 / (kernel_s + decide_s) / peer_speed,
        "text_mb": total / 1e6,
        "documents": len(texts),
        "peer_sample_mb": peer_bytes / 1e6,
        "peer_filters": "every filter on every document" if "--all" in sys.argv else "until one drops it",
        "signals_s": signals_s,
        "kernel_s": kernel_s,
        "decisions_s": decide_s,
        "warm_up_s": warm,
        "mb_s_of_a_16th": linear[16],
        "mb_s_of_a_quarter": linear[4],
        "machine": machine(),
    }
    show(result)


if __name__ == "__main__":
    main()

"""A whole build against datatrove: from one JSONL of real text to token shards, on one core, CPU seconds of the whole process tree.

Ours is ``build_corpus`` and ``write_tokens`` as a project runs them, with all that a new project has switched on: language, every signal,
personal data, exact and near copies, boilerplate lines, repeated spans, licences. datatrove reads the JSONL, filters (Gopher repetition
and quality, C4, FineWeb: the same sets of rules), removes near copies in its four MinHash stages and writes tokens with the same
tokenizer.json. It gets a sample of the text, as the whole would take many minutes, and its speed is per byte of that sample; what a
process needs to start is counted on both sides.

datatrove asks its filters one after another until one drops the document; ours evaluates every rule on every document and keeps the
evidence. Both ratios are printed: against datatrove in its own way (``ratio``), and against datatrove when it too asks every filter
(``ratio_every_filter``, on half the sample).

    python benchmarks/build_vs_datatrove.py [--mb=100] [--peer-mb=32] [--texts=FILE.jsonl] [--scale] [--json]
"""

import importlib.metadata
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from signals_common import machine, one_core, peer_filters, show

one_core()
import build_common as common  # noqa: E402

BAR = 15.0
SCALE = (1, 4, 16)


def _all_at_once(filters: list[Any]) -> Any:
    """One filter of several, all of which are asked about every document."""
    from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

    class Every(BaseFilter):  # type: ignore[misc]
        name = "every filter"

        def filter(self, doc: Any) -> bool:
            keeps = []
            for one in filters:
                try:
                    keeps.append(get_filter_result(one.filter(doc))[0])
                except (ZeroDivisionError, AssertionError):  # of a text in which an earlier one left no line
                    keeps.append(False)
            return all(keeps)

    return Every()


def theirs(jsonl: Path, root: Path, tokenizer: Path, *, every: bool = False) -> dict[str, Any]:
    """datatrove's way, stage after stage in this process; its settings are the defaults. ``every``: every filter sees every document."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    data = root / "data"
    data.mkdir(parents=True)
    shutil.copyfile(jsonl, data / "texts.jsonl")
    place = {name: str(root / name) for name in ("filtered", "signatures", "buckets", "remove", "tokens")}
    config = MinhashConfig()
    filters = [peer_filters()[name] for name in common.RULES]
    asked = [_all_at_once(filters)] if every else filters
    stages: list[tuple[list[Any], int]] = [
        ([JsonlReader(str(data)), *asked, JsonlWriter(place["filtered"])], 1),
        ([JsonlReader(place["filtered"]), MinhashDedupSignature(place["signatures"], config=config)], 1),
        ([MinhashDedupBuckets(place["signatures"], place["buckets"], config=config)], config.num_buckets),
        ([MinhashDedupCluster(place["buckets"], place["remove"], config=config)], 1),
        (
            [
                JsonlReader(place["filtered"]),
                MinhashDedupFilter(place["remove"]),
                DocumentTokenizer(
                    place["tokens"],
                    str(tokenizer / "tokenizer.json"),
                    eos_token="<|endoftext|>",
                    shuffle_documents=False,
                ),
            ],
            1,
        ),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(root / f"log{number}")).run()
    size = sum(path.stat().st_size for path in Path(place["tokens"]).rglob("*.ds"))
    ends = sum(path.stat().st_size for path in Path(place["tokens"]).rglob("*.ds.index"))
    return {"documents": ends // 8, "tokens": size // 2}


def _side(side: str, jsonl: str, tokenizer: str) -> None:
    """One side in a process of its own, whose CPU time is what is compared."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="gptwright-build-"))
    try:
        if side.startswith("theirs"):
            from datatrove.utils.logging import logger

            logger.remove()
            found = theirs(Path(jsonl), folder / "project", Path(tokenizer), every=side == "theirs-every")
            print(json.dumps(found))
        else:
            every = side == "ours"
            print(json.dumps(common.ours(Path(jsonl), folder / "project", Path(tokenizer), everything=every)))
    finally:
        shutil.rmtree(folder)


def _run(side: str, jsonl: Path, tokenizer: Path) -> tuple[dict[str, Any], float]:
    return common.measured([sys.executable, "-W", "ignore", __file__, "--side", side, str(jsonl), str(tokenizer)])


def main() -> None:
    if "--side" in sys.argv:
        return _side(*sys.argv[sys.argv.index("--side") + 1 :][:3])

    def asked(name: str, default: float) -> float:
        return next((float(a.partition("=")[2]) for a in sys.argv if a.startswith(f"--{name}=")), default)

    mb, peer_mb = asked("mb", 100), asked("peer-mb", 32)
    with tempfile.TemporaryDirectory(prefix="gptwright-texts-") as scratch:
        texts, tokenizer = Path(scratch, "texts.jsonl"), Path(scratch, "tokenizer")
        given = next((Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--texts=")), None)
        size = common.head(given, texts, int(mb * 1e6)) if given else common.write_corpus(texts, int(mb * 1e6))
        common.train(texts, tokenizer)
        sample = Path(scratch, "sample.jsonl")
        sample_size = common.head(texts, sample, int(peer_mb * 1e6))
        _run("ours", sample, tokenizer)  # compiles loops, which happens once on a machine
        mine, cpu = _run("ours", texts, tokenizer)
        _, bare = _run("bare", texts, tokenizer)
        other, peer_cpu = _run("theirs", sample, tokenizer)
        half = Path(scratch, "half.jsonl")
        half_size = common.head(texts, half, int(peer_mb * 5e5))
        _, every_cpu = _run("theirs-every", half, tokenizer)
        speed, peer_speed = size / 1e6 / cpu, sample_size / 1e6 / peer_cpu
        result: dict[str, Any] = {
            "name": "build_vs_datatrove",
            "ours": speed,
            "peer": f"datatrove {importlib.metadata.version('datatrove')}",
            "theirs": peer_speed,
            "unit": "MB of text a CPU second, one core, from JSONL to token shards",
            "ratio": speed / peer_speed,
            "bar": BAR,
            "ratio_every_filter": speed / (half_size / 1e6 / every_cpu),
            "ratio_without_lines_and_spans": size / 1e6 / bare / peer_speed,
            "text_mb": size / 1e6,
            "peer_sample_mb": sample_size / 1e6,
            "cpu_s": cpu,
            "build_cpu_s": mine["build_s"],
            "peer_cpu_s_of_sample": peer_cpu,
            "kept": mine["documents"],
            "tokens": mine["tokens"],
            "peer_kept_of_sample": other["documents"],
            "peer_tokens_of_sample": other["tokens"],
            "peak_mb": mine["peak_mb"],
            "machine": machine(),
        }
        if "--scale" in sys.argv:
            for times in SCALE:
                part = Path(scratch, f"part-{times}.jsonl")
                got = common.head(texts, part, int(size * times / SCALE[-1]))
                had, spent = _run("ours", part, tokenizer)
                result[f"cpu_s_of_{got / 1e6:.1f}_mb"] = spent
                result[f"peak_mb_of_{got / 1e6:.1f}_mb"] = had["peak_mb"]
    show(result)


if __name__ == "__main__":
    main()

"""Find copies in a corpus: the one entry that a build calls. Everything lands on disk and is taken up again by a later build."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from gptwright.core.files import read_json
from gptwright.corpus.copies import ExactCopies
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.found import Found
from gptwright.corpus.dedup.layout import PartFiles, lay_out
from gptwright.corpus.dedup.lines import find_lines
from gptwright.corpus.dedup.near import STATE, State, evidence_files
from gptwright.corpus.dedup.spans import find_anchors
from gptwright.corpus.dedup.store import PARTITION_RECORDS


def find(
    parts: Sequence[PartFiles],
    config: DedupConfig,
    index_dir: Path,
    work: Path,
    between: Callable[[], None] = lambda: None,
) -> Found:
    """Groups of equal texts and evidence of similar ones over all parts.

    Args:
        parts: docs files with their features, in corpus order.
        config: what is compared.
        index_dir: kept from build to build (``work/corpus/index/near``): only what is new is compared.
        work: a folder that ``Found`` lives in; emptied first.
        between: called between two pieces of work; may raise to stop. A later call goes on where this one stopped.

    Returns:
        What was found; the same whatever was indexed before and however often the work was interrupted.
    """
    shutil.rmtree(work, ignore_errors=True)
    layout = lay_out(parts, work)
    between()
    exact = ExactCopies.find(layout.norm_ids, work / "exact", PARTITION_RECORDS // 2)
    found = Found(layout, exact, [], config)
    if config.near:
        found.evidence = evidence_files(layout, config, index_dir, between)
        state = State.model_validate(read_json(index_dir / STATE))
        found.whole = all(part.largest <= config.hub for part in state.partitions)
    if config.lines:
        found.lines = find_lines(layout, config, work / "lines", between)
    if config.spans:
        found.anchors = find_anchors(layout, work / "spans", between)
    return found

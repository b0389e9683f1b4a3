"""Documents taken out of token shards after the fact: end tokens in their place, and no loss there.

Lengths and positions stay, so the plan of a run over the data set stays too: "the same steps with the document's slots
masked". The data set's hash changes; its ``origin``, which names the plan, does not.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from gptwright.core.files import atomic_dir, read_json
from gptwright.core.hashing import b2_file
from gptwright.tokens.format import ShardInfo, write_tables, zero_runs
from gptwright.tokens.shards import MANIFEST, TokenDataset, TokensResult, write_manifest
from gptwright.tokens.tokenizer import Tokenizer


def erase_documents(
    folder: str | Path, doc_uids: Collection[str], tokenizer: Tokenizer
) -> tuple[TokensResult | None, list[str]]:
    """Erase documents from a data set, all or none: the changed folder takes the old one's place in one step.

    Args:
        folder: a data set.
        doc_uids: ids; those that it does not hold are ignored.
        tokenizer: for the count of bytes that are left.

    Returns:
        The new totals (None when nothing was found) and the names of the shards that changed.
    """
    folder = Path(folder)
    dataset = TokenDataset.open(folder, tokenizer)
    manifest = read_json(folder / MANIFEST)
    found = sorted({index for uid in doc_uids for index in dataset.find(uid)})
    if not found:
        return None, []
    stretches = [(int(dataset.starts[i]), int(dataset.starts[i + 1])) for i in found]
    removed = sum(int(tokenizer.byte_lengths[dataset.read(a, b - a)].sum(dtype=np.int64)) for a, b in stretches)
    infos: list[ShardInfo] = []
    changed: list[str] = []
    before = 0
    with atomic_dir(folder) as fresh:
        for shard in dataset.shards:
            size = len(shard.tokens)
            mine = [(a - before, b - before) for a, b in stretches if before <= a < before + size]
            before += size
            name = shard.info.name
            if not mine:
                for kind in ("bin", "idx", "map"):
                    _link(folder / f"{name}.{kind}", fresh / f"{name}.{kind}")
                infos.append(shard.info)
                continue
            tokens = np.array(shard.tokens)
            mask = np.ones(size, dtype=np.uint8)
            for low, high in shard.spans:
                mask[int(low) : int(high)] = 0
            for low, high in mine:
                tokens[low:high] = shard.eos_id
                mask[low:high] = 0
            path = fresh / f"{name}.bin"
            path.write_bytes(tokens.tobytes())
            infos.append(
                write_tables(
                    fresh,
                    name,
                    bin_digest=bytes.fromhex(b2_file(path).removeprefix("b2:")),
                    starts=shard.starts,
                    uids=shard.uids.tobytes(),
                    spans=np.array(zero_runs(mask), dtype="<u8").reshape(-1, 2),
                    n_tokens=size,
                    item_bytes=tokens.dtype.itemsize,
                    eos_id=shard.eos_id,
                    vocab_size=shard.vocab_size,
                    tokenizer_hash=shard.tokenizer_hash,
                )
            )
            changed.append(name)
        size_bytes = int(manifest["bytes"]) - removed
        return write_manifest(fresh, infos, dataset.tokenizer_hash, size_bytes, dataset.origin), changed


def _link(source: Path, target: Path) -> None:
    """An unchanged file in the new folder without copying it, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

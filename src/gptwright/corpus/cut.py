"""What is cut out of kept documents: boilerplate lines and repeated spans that another document keeps, and the lines a recipe removes.

Cuts are edits like masks are, and are laid over them here: the texts stay as they came. Which documents are kept decides what is cut,
so this runs between the two passes of ``decide``.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.hashing import b2, b2_file, b2_json
from gptwright.core.stages import code_version
from gptwright.corpus import signals, tables
from gptwright.corpus.copies import Bools
from gptwright.corpus.decide import Part
from gptwright.corpus.dedup.edits import write_edits
from gptwright.corpus.dedup.features import CUTTABLE, cuttable, text_batches
from gptwright.corpus.dedup.found import Found
from gptwright.corpus.edits import Edit
from gptwright.corpus.look import by_row, final_texts
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.recipes.rule import set_of

RULED = "RULE"  # kind of a line that a recipe removes
_CODE = ("gptwright.corpus.cut", "gptwright.corpus.edits", "gptwright.corpus.look")


class Cutter:
    """Signals and edits of each part, with cuts once ``cut`` was called.

    Args:
        parts: docs files with their signals.
        edits: of each part, masks and tidying.
        found: what deduplication found.
        recipe: its line rules remove lines.
        folder: where results go, under names that their content makes.
    """

    def __init__(
        self, parts: Sequence[Part], edits: Sequence[Path], found: Found, recipe: Recipe, folder: Path
    ) -> None:
        self._parts, self._found, self._folder = parts, found, folder
        self._sets = sorted({set_of(rule.id) for rule in recipe.line_rules})
        self.signals = [part.signals for part in parts]
        self.edits = list(edits)
        self.names: set[str] = set()

    def cut(self, kept: Bools, heldout: Bools) -> Sequence[Path]:
        """Cut, given who is kept.

        Args:
            kept: (rows,) bool, over all parts.
            heldout: (rows,) bool.

        Returns:
            Of each part its signals, sizes and ids of texts as they are after all edits.
        """
        config = self._found.config
        repeated: list[Path] = []
        if config.lines or config.spans:
            folder = self._found.layout.folder / "cuts"
            repeated = write_edits(self._found, kept, folder, self._found.priority, heldout)
        first = 0
        for number, part in enumerate(self._parts):
            rows = pq.read_metadata(part.docs).num_rows
            extra = pq.read_table(repeated[number]) if repeated else tables.EDITS.empty_table()
            self._cut_part(number, part, extra, repeated[number] if repeated else None, kept[first : first + rows])
            first += rows
        return self.signals

    def _cut_part(self, number: int, part: Part, repeated: pa.Table, source: Path | None, kept: Bools) -> None:
        if not repeated.num_rows and not (self._sets and kept.any()):
            return
        inputs = [code_version(_CODE), self.signals[number].name, self.edits[number].name, b2_file(self.edits[number])]
        of_kept = b2(np.packbits(kept).tobytes()) if self._sets else 0
        key = b2_json([*inputs, b2_file(source) if source else 0, self._sets, of_kept])
        name = "final-" + key.removeprefix("b2:")[:32]
        signals_path, edits_path = self._folder / f"{name}.parquet", self._folder / f"{name}-edits.parquet"
        self.names.add(name)
        if not signals_path.exists():
            self._write(part, self.edits[number], repeated, kept, signals_path, edits_path)
        self.signals[number], self.edits[number] = signals_path, edits_path

    def _write(
        self, part: Part, old_edits: Path, repeated: pa.Table, kept: Bools, signals_path: Path, edits_path: Path
    ) -> None:
        looked = pq.read_table(part.signals)
        sizes, ids = looked["n_bytes_edited"].to_pylist(), looked["edit_id"].to_pylist()
        before, masks, cuts = looked["n_bytes"].to_numpy(), by_row(pq.read_table(old_edits)), by_row(repeated)
        final = dict(masks)
        wanted = kept if self._sets else None
        for first, batch in text_batches(part.docs, ["text", *CUTTABLE], wanted):
            rows = range(first, first + batch.num_rows)
            own = {row: list(cuts.get(row, [])) for row in rows if row in cuts}
            for name in self._sets:
                for edit_row, edits in _ruled(batch, name, first, kept).items():
                    own.setdefault(edit_row, []).extend(edits)
            for row, edits in own.items():
                final[row] = lay_over(masks.get(row, []), edits)
            changed = {row - first: final[row] for row in own}
            if changed:
                size, identity = final_texts(batch["text"], batch["messages"], changed, before[first : rows.stop])
                for row in changed:
                    sizes[first + row], ids[first + row] = int(size[row]), identity[row]
        for name, column in (("n_bytes_edited", pa.array(sizes, pa.int64())), ("edit_id", pa.array(ids, tables.ID))):
            looked = looked.set_column(looked.schema.get_field_index(name), name, column)
        flat = [(row, *vars(edit).values()) for row in sorted(final) for edit in final[row]]
        columns = zip(*flat, strict=True) if flat else ([] for _ in tables.EDITS)
        arrays = [pa.array(list(column), one.type) for column, one in zip(columns, tables.EDITS, strict=True)]
        tables.write_table(edits_path, pa.table(arrays, schema=tables.EDITS))
        tables.write_table(signals_path, looked)


def _ruled(batch: pa.RecordBatch, rules: str, first: int, kept: Bools) -> dict[int, list[Edit]]:
    """Lines of kept texts that a set of line rules removes, by row of the part; no line of a program or conversation."""
    found: dict[int, list[Edit]] = {}
    rows = np.flatnonzero(cuttable(batch) & kept[first : first + batch.num_rows])
    if not len(rows):
        return found
    spans = signals.removed_spans(batch["text"].take(pa.array(rows)), rules)
    chosen = (first + rows[spans["doc_row"].to_numpy()]).tolist()
    for row, start, end in zip(chosen, spans["start"].to_pylist(), spans["end"].to_pylist(), strict=True):
        found.setdefault(row, []).append(Edit(start, end, RULED, ""))
    return found


def lay_over(masks: Iterable[Edit], cuts: Iterable[Edit]) -> list[Edit]:
    """Cuts over masks: cuts that touch become one, and one that meets a mask takes all of it, so that no half of it shows."""
    joined: list[Edit] = []
    for edit in sorted(cuts, key=lambda e: (e.start, e.end)):
        if joined and edit.start <= joined[-1].end:
            last = joined[-1]
            joined[-1] = Edit(last.start, max(last.end, edit.end), last.kind, "")
        else:
            joined.append(edit)
    left: list[Edit] = []
    for mask in sorted(masks, key=lambda e: (e.start, e.end)):
        at = next((i for i, cut in enumerate(joined) if cut.start < mask.end and mask.start < cut.end), None)
        if at is None:
            left.append(mask)
            continue
        cut = joined[at]
        joined[at] = Edit(min(cut.start, mask.start), max(cut.end, mask.end), cut.kind, "")
        while at + 1 < len(joined) and joined[at + 1].start <= joined[at].end:
            following = joined.pop(at + 1)
            joined[at] = Edit(joined[at].start, max(joined[at].end, following.end), joined[at].kind, "")
    return sorted([*left, *joined], key=lambda e: (e.start, e.end))

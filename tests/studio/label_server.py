"""A labelling page over a few made-up documents, in a process of its own. Prints its address; the store is the given file."""

import sys
from pathlib import Path

from gptwright.core.control import ControlStore
from gptwright.corpus.quality.desk import Desk, Sheet
from gptwright.studio.label import serve_label


def main(store: Path) -> None:
    control = ControlStore.open(store)
    texts = ["first <b>text</b>\nin two lines", "second text", "third text"]
    sheets = [Sheet(f"{i:032x}", f"{i + 16:032x}", "own", f"notes/{i}.txt", text) for i, text in enumerate(texts)]
    serve_label(lambda: Desk(control, sheets, target=5), on_start=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

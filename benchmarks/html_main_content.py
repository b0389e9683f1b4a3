"""Main text of HTML pages against 30 that were labelled by hand: precision, recall and F1 on words, and time.

    python benchmarks/html_main_content.py [--show NAME]

The pages stand in tests/corpus/pages. What is main text is marked in them by the signs of MARKS, which are taken out before a page is
read. Compared: all visible text, resiliparse's main content as it comes, and ours (readers/html.py).
"""

import argparse
import html
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parent.parent / "tests" / "corpus" / "pages"
MARKS = "⟦⟧"
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Page:
    """A labelled page."""

    name: str
    html: str
    gold: str


def pages() -> list[Page]:
    """All labelled pages by name."""
    found = []
    for path in sorted(PAGES.glob("*.html")):
        marked = path.read_text(encoding="utf-8")
        gold = "\n".join(html.unescape(_TAG.sub(" ", piece)) for piece in re.findall("⟦(.*?)⟧", marked, re.DOTALL))
        found.append(Page(path.stem, marked.translate({ord(mark): None for mark in MARKS}), gold))
    return found


def score(text: str, gold: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of a text's words; Chinese and Japanese signs count as words."""
    found, wanted = Counter(_WORD.findall(text.lower())), Counter(_WORD.findall(gold.lower()))
    common = sum((found & wanted).values())
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / sum(found.values()), common / sum(wanted.values())
    return precision, recall, 2 * precision * recall / (precision + recall)


def whole(page: str) -> str:
    """All visible text."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(page, main_content=False, alt_texts=False, preserve_formatting=True))


def resiliparse(page: str) -> str:
    """Resiliparse's main content, with the settings that were used before ours."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(page, main_content=True, alt_texts=False, preserve_formatting=True))


def ours(page: str) -> str:
    """What the HTML reader takes."""
    from gptwright.corpus.readers.html import main_text, parse

    return main_text(parse(page))


METHODS: dict[str, Callable[[str], str]] = {
    "all visible text": whole,
    "resiliparse main content": resiliparse,
    "gptwright": ours,
}


def mean(method: Callable[[str], str]) -> tuple[float, float, float]:
    """Mean precision, recall and F1 over all pages."""
    scores = [score(method(page.html), page.gold) for page in pages()]
    precision, recall, f1 = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    return precision, recall, f1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", help="print what each method takes of this page")
    parser.add_argument("--pages", action="store_true", help="print the scores of each page")
    options = parser.parse_args()
    labelled = pages()
    if options.show:
        page = next(page for page in labelled if page.name.startswith(options.show))
        for name, method in METHODS.items():
            print(
                f"--- {name} {tuple(round(value, 3) for value in score(method(page.html), page.gold))}\n{method(page.html)}\n"
            )
        print(f"--- gold\n{page.gold}")
        return
    if options.pages:
        for page in labelled:
            rows = [score(method(page.html), page.gold) for method in METHODS.values()]
            print(f"{page.name:26}" + "".join(f" {p:.2f} {r:.2f} {f:.2f} |" for p, r, f in rows))
    print(f"{len(labelled)} pages\n{'':26} precision  recall      F1   worst F1   ms a page")
    for name, method in METHODS.items():
        scores = [score(method(page.html), page.gold) for page in labelled]
        started = time.process_time()
        for _ in range(10):
            for page in labelled:
                method(page.html)
        spent = (time.process_time() - started) / 10 / len(labelled) * 1000
        precision, recall, f1 = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        print(f"{name:26} {precision:9.3f} {recall:7.3f} {f1:7.3f} {min(s[2] for s in scores):10.3f} {spent:11.2f}")


if __name__ == "__main__":
    main()

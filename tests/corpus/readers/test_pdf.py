"""PDF: reading order, running heads, cut words, and verdicts."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from gptwright.corpus.readers.pdflayout import Run, page_texts

if TYPE_CHECKING:
    from conftest import Extract

Make = Callable[..., bytes]
LEFT = [
    "The old bridge was built by the people of",
    "both villages in the summer of a dry year.",
    "They carried stones from the river and laid",
    "them one by one, and nobody was paid for",
    "it. In the evening there was music, and the",
    "children slept under the first arch that was",
]
RIGHT = [
    "finished. The next year the water came high",
    "and took two of the pillars away, but what",
    "was left held. A man who could reckon came",
    "from the town and said where new ones had to",
    "stand, and they have stood there until today",
    "as everyone who walks across can see.",
]


def column(lines: list[str], x: float, top: float, size: float = 10) -> list[tuple[float, float, float, str]]:
    return [(x, top - 12 * number, size, line) for number, line in enumerate(lines)]


def test_pdf_when_it_has_two_columns_then_they_are_read_one_after_the_other(extracted: "Extract", pdf: Make) -> None:
    title = [(150.0, 740.0, 18.0, "The bridge and the two villages that built it")]
    # Written across the page line by line, as some programs do.
    across = [text for pair in zip(column(LEFT, 60, 700), column(RIGHT, 320, 700), strict=True) for text in pair]
    found = extracted({"a.pdf": pdf([title + across], title="Bridge")})
    text = " ".join(LEFT + RIGHT)
    assert found.outcomes["a.pdf"] == ("ok", None)
    assert found.texts["a.pdf"] == f"The bridge and the two villages that built it\n\n{text}"
    assert found.rows[0]["title"] == "Bridge"
    assert found.rows[0]["mime"] == "application/pdf"


def test_pdf_when_words_are_cut_at_line_ends_then_they_are_whole_again(extracted: "Extract", pdf: Make) -> None:
    lines = [
        "A long line of text that stands here so that the next is the sec-",
        "ond, and a well-known thing is that a hyphen may be meant, as in well-",
        "known words; a name like Marie-",
        "Claire keeps it too.",
    ]
    found = extracted({"a.pdf": pdf([column(lines, 60, 700)])})
    assert found.texts["a.pdf"] == (
        "A long line of text that stands here so that the next is the second, and a well-known thing is that a hyphen may be meant, "
        "as in well-known words; a name like Marie-Claire keeps it too."
    )


def test_pdf_when_heads_and_numbers_repeat_then_they_are_left_out_and_paragraphs_go_on_overleaf(
    extracted: "Extract", pdf: Make
) -> None:
    pages = []
    for number in range(1, 7):
        word = ("stone", "river", "arch", "pillar", "music", "bread")[number - 1]
        body = column(
            [
                f"{word.title()} begins this page with some words and goes on without",
                f"an end to the {word} at all, so that {word} is followed by",
            ],
            60,
            700,
        )
        pages.append([(60, 760, 9, f"Chapter {number // 3}: The Village"), *body, (300, 40, 9, f"- {number} -")])
    found = extracted({"a.pdf": pdf(pages)})
    text = found.texts["a.pdf"]
    assert "Chapter" not in text
    assert "- 3 -" not in text
    assert text.count("begins this page") == 6
    assert "followed by\n\nRiver begins" in text  # it begins with a capital, so it may be a sentence of its own


def test_pdf_when_paragraph_goes_on_overleaf_then_it_is_one(extracted: "Extract", pdf: Make) -> None:
    pages = [
        column(["A line that goes to the edge of what is written on a page with a wo-"], 60, 700),
        column(["rd that is cut, and then it ends."], 60, 700),
    ]
    found = extracted({"a.pdf": pdf(pages)})
    assert (
        found.texts["a.pdf"]
        == "A line that goes to the edge of what is written on a page with a word that is cut, and then it ends."
    )


def test_pdf_when_it_is_long_then_parts_are_placed_by_page(
    extracted: "Extract", pdf: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptwright.corpus import text as t

    monkeypatch.setattr(t, "PART_CHARS", 600)
    pages = [
        column([f"Sentence {line} of page {page} says a little more than nothing." for line in range(10)], 60, 700)
        for page in range(5)
    ]
    found = extracted({"a.pdf": pdf(pages)})
    assert "a.pdf#page=2&part=2" in found.texts
    assert found.texts["a.pdf#page=2&part=2"].startswith("Sentence")
    assert len({row["split_id"] for row in found.rows}) == 1


def test_pdf_when_cells_stand_in_rows_then_a_table_is_read_row_by_row(extracted: "Extract", pdf: Make) -> None:
    cells = [
        (x, 700.0 - 14 * row, 10.0, f"{name}{row}")
        for row in range(8)
        for x, name in ((60.0, "a"), (250.0, "b"), (440.0, "c"))
    ]
    found = extracted({"a.pdf": pdf([cells])})
    assert found.texts["a.pdf"].splitlines()[:2] == ["a0  b0  c0", "a1  b1  c1"]


def test_pdf_when_it_gives_no_text_then_the_verdict_says_why(extracted: "Extract", pdf: Make) -> None:
    whole = pdf([column(LEFT, 60, 700)])
    loop = whole.replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")
    locked = whole.replace(
        b"trailer\n<<",
        b"trailer\n<< /Encrypt << /Filter /Standard /V 1 /R 2 /O (%s) /U (%s) /P -4 >> /ID [(a)(a)]"
        % (b"o" * 32, b"u" * 32),
    )
    started = time.perf_counter()
    found = extracted(
        {
            "scan.pdf": pdf([[], []]),
            "locked.pdf": locked,
            "loop.pdf": loop,
            "cut.pdf": whole[:200],
            "text.pdf": b"only text",
            "zero.pdf": bytes(5000),
        }
    )
    assert time.perf_counter() - started < 20
    assert found.outcomes["scan.pdf"] == (
        "unreadable",
        "no text layer (2 pages of images). Run OCR first, or remove the file",
    )
    assert {outcome for outcome, _ in found.outcomes.values()} == {"unreadable"}
    for name, words in {
        "locked.pdf": "encrypted",
        "loop.pdf": "PDF",
        "cut.pdf": "damaged",
        "text.pdf": "a text",
        "zero.pdf": "zero bytes",
    }.items():
        assert words in str(found.outcomes[name][1]), found.outcomes[name]


def test_pdf_when_some_pages_are_scans_then_it_is_said(extracted: "Extract", pdf: Make) -> None:
    found = extracted({"a.pdf": pdf([column(LEFT, 60, 700), []])})
    assert found.outcomes["a.pdf"] == ("ok", "1 of 2 pages without a text layer")


@pytest.mark.slow
def test_pdf_when_the_library_hangs_or_dies_then_the_file_is_at_fault_and_the_next_is_read(
    extracted: "Extract", pdf: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from gptwright.corpus.readers import guarded

    whole = pdf([column(LEFT, 60, 700)])
    assert extracted({"a.pdf": whole}).outcomes["a.pdf"][0] == "ok"
    child = guarded._children[(os.getpid(), "pdf")]
    real = guarded._answers
    for number, sign in enumerate((signal.SIGSEGV, signal.SIGALRM)):

        def struck(stdout: object, sign: int = sign) -> object:
            os.kill(guarded._children[(os.getpid(), "pdf")].pid, sign)
            guarded._children[(os.getpid(), "pdf")].wait()
            yield from real(open(os.devnull, "rb"))

        monkeypatch.setattr(guarded, "_answers", struck)
        found = extracted({f"b{number}.pdf": whole})
        assert found.outcomes[f"b{number}.pdf"][0] == "unreadable"
        assert ("more than 30 s" if sign == signal.SIGALRM else "crashes") in str(found.outcomes[f"b{number}.pdf"][1])
        monkeypatch.setattr(guarded, "_answers", real)
        assert extracted({f"c{number}.pdf": whole}).outcomes[f"c{number}.pdf"][0] == "ok"
    assert child.poll() is not None


def test_layout_when_scripts_use_no_spaces_then_lines_join_without() -> None:
    lines = ["今日は天気がよいので朝から川のそばを散歩しま", "した。古い橋の上で友だちに会い、パンと音楽の"]
    runs = [Run(50, 700 - 14 * n, 500, 712 - 14 * n, line) for n, line in enumerate(lines)]
    assert "".join(page_texts([runs])) == "".join(lines)

# ruff: noqa: E501 - documents of many formats, written out
"""Word, OpenDocument, EPUB and RTF documents; notebooks, source code and e-mail."""

import io
import json
import random
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Extract


def packed(files: dict[str, str | bytes], stored: str | None = None) -> bytes:
    """A zip archive, the first of its files unpacked as EPUB and OpenDocument want it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if stored:
            archive.writestr(zipfile.ZipInfo("mimetype"), stored)
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def docx_of(body: str, **more: str) -> bytes:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    document = f'<?xml version="1.0"?><w:document {space}><w:body>{body}</w:body></w:document>'
    return packed(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": document,
            **{f"word/{k}.xml": v.replace("NS", space) for k, v in more.items()},
        }
    )


def test_docx_when_word_wrote_it_then_paragraphs_lists_and_tables_are_in_order(extracted: "Extract") -> None:
    import docx

    document = docx.Document()
    document.core_properties.title = "On bridges"
    document.add_heading("The bridge", 1)
    document.add_paragraph("It was built\tin summer.").add_run(" By all.")
    for item in ("stones", "wood"):
        document.add_paragraph(item, style="List Bullet")
    for item in ("first", "second"):
        document.add_paragraph(item, style="List Number")
    table = document.add_table(2, 2)
    for row, values in enumerate((("year", "arches"), ("1871", "three"))):
        for cell, value in zip(table.rows[row].cells, values, strict=True):
            cell.text = value
    document.add_paragraph("The end.")
    document.sections[0].header.paragraphs[0].text = "RUNNING HEAD"
    out = io.BytesIO()
    document.save(out)
    found = extracted({"a.docx": out.getvalue()})
    assert found.texts["a.docx"].split("\n\n")[:2] == ["The bridge", "It was built\tin summer. By all."]
    assert "year | arches\n1871 | three\n\nThe end." in found.texts["a.docx"]
    assert "RUNNING HEAD" not in found.texts["a.docx"]
    assert found.rows[0]["title"] == "On bridges"


def test_docx_when_it_has_lists_notes_and_changes_then_they_read_as_on_paper(extracted: "Extract") -> None:
    def item(text: str, number: int, level: int = 0) -> str:
        properties = f'<w:pPr><w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr></w:pPr>'
        return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"

    numbering = (
        '<w:numbering NS><w:abstractNum w:abstractNumId="7"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>'
        '<w:abstractNum w:abstractNumId="8"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="8"/></w:num></w:numbering>'
    )
    notes = '<w:footnotes NS><w:footnote w:id="5"><w:p><w:r><w:t>So the old say.</w:t></w:r></w:p></w:footnote></w:footnotes>'
    body = (
        "<w:p><w:r><w:t>It held</w:t></w:r><w:r><w:footnoteReference w:id=\"5\"/></w:r><w:del><w:r><w:delText>never</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t xml:space=\"preserve\"> well.</w:t></w:r></w:ins></w:p>"
        + item("one", 1) + item("two", 1) + item("dash", 2)
        + "<w:p><mc:AlternateContent><mc:Choice><w:r><w:t>box</w:t></w:r></mc:Choice><mc:Fallback><w:r><w:t>box</w:t></w:r></mc:Fallback>"
        "</mc:AlternateContent></w:p>"
    )  # fmt: skip
    found = extracted({"a.docx": docx_of(body, numbering=numbering, footnotes=notes)})
    assert found.texts["a.docx"] == "It held[1] well.\n\n1. one\n2. two\n- dash\n\nbox\n\n[1] So the old say."


def odt_of(body: str, **more: str) -> bytes:
    spaces = " ".join(
        f'xmlns:{p}="urn:oasis:names:tc:opendocument:xmlns:{n}:1.0"'
        for p, n in (("office", "office"), ("text", "text"), ("table", "table"))
    )
    content = f"<office:document-content {spaces}><office:body><office:text>{body}</office:text></office:body></office:document-content>"
    return packed({"content.xml": content, **more}, "application/vnd.oasis.opendocument.text")


def test_odt_when_it_has_lists_tables_and_notes_then_they_are_in_order(extracted: "Extract") -> None:
    body = (
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:h>The bridge</text:h>"
        "<text:p>It was<text:s text:c='2'/>built<text:line-break/>here<text:note><text:note-citation>1</text:note-citation><text:note-body>"
        "<text:p>So they say.</text:p></text:note-body></text:note>.</text:p>"
        "<text:list><text:list-item><text:p>stone</text:p><text:list><text:list-item><text:p>grey</text:p></text:list-item></text:list>"
        "</text:list-item><text:list-item><text:p>wood</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>year</text:p></table:table-cell><table:table-cell><text:p>1871</text:p>"
        "</table:table-cell></table:table-row></table:table>"
    )
    found = extracted({"a.odt": odt_of(body), "b.bin": odt_of("<text:p>named otherwise</text:p>")})
    assert (
        found.texts["a.odt"]
        == "The bridge\n\nIt was  built\nhere[1].\n\n- stone\n  - grey\n- wood\n\nyear | 1871\n\n[1] So they say."
    )
    assert found.texts["b.bin"] == "named otherwise"


def epub_of(chapters: dict[str, str], spine: list[str], meta: str = "") -> bytes:
    items = "".join(f'<item id="{k}" href="text/{k}.xhtml" media-type="application/xhtml+xml"/>' for k in chapters)
    refs = "".join(f'<itemref idref="{k}"/>' for k in spine)
    opf = (
        f'<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>A book</dc:title>'
        f"<dc:language>en</dc:language>{meta}</metadata><manifest>{items}"
        f'<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/></manifest><spine><itemref idref="nav"/>{refs}</spine></package>'
    )
    container = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    pages = {f"OEBPS/text/{k}.xhtml": f"<html><body>{v}</body></html>" for k, v in chapters.items()}
    return packed(
        {
            "META-INF/container.xml": container,
            "OEBPS/book.opf": opf,
            "OEBPS/nav.xhtml": "<html><body>CONTENTS</body></html>",
            **pages,
        },
        "application/epub+zip",
    )


def test_epub_when_spine_differs_from_names_then_chapters_follow_the_spine(
    extracted: "Extract", monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptwright.corpus import text as t

    monkeypatch.setattr(t, "PART_CHARS", 80)
    meta = "<dc:creator>Ann Author</dc:creator><dc:rights>CC BY 4.0</dc:rights><dc:date>1999-05-01</dc:date>"
    book = epub_of(
        {
            "b": "<h1>One</h1><p>The first chapter says that it is the first, in words.</p>",
            "a": "<h1>Two</h1><p>" + "And the second goes on. " * 8 + "</p>",
        },
        ["b", "a"],
        meta,
    )
    found = extracted({"a.epub": book})
    whole = "\n".join(found.texts.values())
    assert whole.startswith("One\n\nThe first chapter")
    assert "CONTENTS" not in whole
    assert whole.index("first chapter") < whole.index("the second")
    assert [row["locator"] for row in found.rows][1] == "a.epub#chapter=2&part=2"
    row = found.rows[0]
    assert (row["title"], row["lang_declared"], row["license_id"], row["attribution"]) == (
        "A book",
        "en",
        "CC-BY-4.0",
        "Ann Author",
    )
    assert row["published_at"].year == 1999


def test_rtf_when_it_is_of_word_then_its_text_is_read_and_its_styles_are_not(extracted: "Extract") -> None:
    rtf = (
        rb"{\rtf1\ansi\ansicpg1252\uc1{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Times;}}{\stylesheet{\s0 Normal;}}"
        rb"{\info{\title On bridges}{\author Nobody}}{\header RUNNING\par}\pard\f0 Caf\'e9 \u8211? and {\b bold}\~text\par"
        b"\n"
        rb"{\f1 \'cf\'f0\'e8\'e2\'e5\'f2}\par{\*\generator Hidden;}{\pict\bin5 }{\\}}Smile \u-10179?\u-8694? end{\footnote A note.}\par"
        rb"\trowd\intbl a\cell b\cell\row\pard Last\par}"
    )
    found = extracted({"a.rtf": rtf})
    assert (
        found.texts["a.rtf"]
        == "Café – and bold\u00a0text\n\nПривет\n\nSmile \U0001f60a end[1]\n\na | b\n\nLast\n\n[1] A note."
    )
    assert found.rows[0]["title"] == "On bridges"


def test_notebook_when_it_has_outputs_then_only_cells_are_read(extracted: "Extract") -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Waves\n", "Some words."]},
        {"cell_type": "code", "source": "x = 1\nprint(x)", "outputs": [{"text": ["SECRET OUTPUT"]}]},
        {"cell_type": "raw", "source": []},
    ]
    book = {"cells": cells, "metadata": {"kernelspec": {"language": "julia"}}, "nbformat": 4}
    found = extracted({"a.ipynb": json.dumps(book), "b.json": json.dumps(book), "c.ipynb": "{}", "d.ipynb": "[[["})
    assert found.texts["a.ipynb"] == found.texts["b.json"] == "# Waves\nSome words.\n\n```julia\nx = 1\nprint(x)\n```"
    assert found.rows[0]["title"] == "Waves"
    assert found.outcomes["c.ipynb"] == ("unreadable", "not a notebook: it has no cells")
    assert "not valid JSON" in str(found.outcomes["d.ipynb"][1])


def test_code_when_told_by_suffix_or_first_line_then_the_language_is_in_the_type(extracted: "Extract") -> None:
    source = "def f():\n\treturn 'ä'\n"
    found = extracted(
        {
            "a.py": source,
            "run": "#!/usr/bin/env python3\n" + source,
            "Makefile": "all:\n\techo\n",
            "x.t": "A plain note.\nNo code in it.\n",
            "s.rs": "fn main() {}\n",
        }
    )
    mimes = {row["locator"]: (row["mime"], row["extractor"].rpartition(".")[2]) for row in found.rows}
    assert mimes == {
        "a.py": ("text/x-python", "code"),
        "run": ("text/x-python", "code"),
        "Makefile": ("text/x-make", "code"),
        "x.t": ("text/plain", "text"),
        "s.rs": ("text/x-rust", "code"),
    }
    assert found.texts["a.py"] == "def f():\n\treturn 'ä'"


MAIL = (
    "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nTo: x@example.org\r\nSubject: Re: the bridge\r\nDate: Mon, 3 May 2021 10:00:00 +0200\r\n"
    "Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: multipart/alternative; boundary=C\r\n\r\n"
    "--C\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSch=F6n.\r\n\r\n> Will it hold?\r\n"
    '--C\r\nContent-Type: text/html\r\n\r\n<p>HTML TWIN</p>\r\n--C--\r\n--B\r\nContent-Type: text/csv; name=t.csv\r\nContent-Disposition: attachment; filename="../t.csv"\r\n\r\n'
    "text\r\nA row of the table\r\n--B\r\nContent-Type: image/png\r\nContent-Disposition: attachment; filename=p.png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--B--\r\n"
)


def test_mail_when_it_has_parts_then_text_headers_and_attachments_are_read(extracted: "Extract") -> None:
    found = extracted({"a.eml": MAIL, "b": MAIL})
    assert (
        found.texts["a.eml"]
        == "Subject: Re: the bridge\nFrom: Jürgen <j@example.org>\nDate: Mon, 03 May 2021 10:00:00 +0200\n\nSchön.\n\n> Will it hold?"
    )
    assert found.texts["a.eml!/1/t.csv#row=1"] == "A row of the table"
    assert "outside" in str(found.outcomes["a.eml!/1/t.csv"][1])
    assert found.outcomes["a.eml!/2/p.png"][0] == "skipped"
    row = found.rows[0]
    assert (row["title"], row["published_at"].isoformat()) == ("Re: the bridge", "2021-05-03T08:00:00+00:00")
    assert found.texts["b"] == found.texts["a.eml"]


def test_mail_when_only_html_is_there_then_its_text_is_read(extracted: "Extract") -> None:
    mail = "From: a@b.org\nSubject: x\nDate: Mon, 3 May 2021 10:00:00 +0200\nContent-Type: text/html; charset=utf-8\n\n<p>Only <b>this</b>.</p><script>no()</script>"
    assert extracted({"a.eml": mail}).texts["a.eml"].endswith("\n\nOnly this.")


def test_mbox_when_messages_follow_each_other_then_each_has_an_outcome(extracted: "Extract") -> None:
    def one(number: int, body: str) -> str:
        return f"From a@b.org Mon May  3 10:00:00 2021\nFrom: a@b.org\nSubject: no {number}\nDate: Mon, 3 May 2021 10:00:00 +0200\n\n{body}\n\n"

    found = extracted({"box.mbox": one(1, "First.\n>From here on") + one(2, "") + one(3, "Third.")})
    assert found.texts["box.mbox!/1.eml"].endswith("First.\nFrom here on")
    assert set(found.texts) == {"box.mbox!/1.eml", "box.mbox!/3.eml"}
    assert found.outcomes["box.mbox!/2.eml"][0] == "empty"
    assert found.outcomes["box.mbox"] == ("ok", None)


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


def test_office_when_xml_declares_entities_then_nothing_is_expanded(extracted: "Extract") -> None:
    word = f"{BOMB}]><w:document xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:document>"
    files = {
        "a.docx": packed({"[Content_Types].xml": "x", "word/document.xml": word}),
        "b.odt": packed({"content.xml": f"{BOMB}]><x>&j;</x>"}, "application/vnd.oasis.opendocument.text"),
        "c.epub": packed({"META-INF/container.xml": f"{BOMB}]><x>&j;</x>"}, "application/epub+zip"),
    }
    started = time.perf_counter()
    found = extracted(files)
    assert time.perf_counter() - started < 5
    assert all(outcome == "unreadable" and "entities" in str(reason) for outcome, reason in found.outcomes.values()), (
        found.outcomes
    )


@pytest.mark.parametrize(
    "name", ["a.docx", "a.odt", "a.epub", "a.pdf", "a.zip", "a.rtf", "a.parquet", "a.jsonl.gz", "a.ipynb", "a.tar.gz"]
)
def test_file_when_cut_off_anywhere_then_it_has_one_outcome_with_a_reason(
    extracted: "Extract", name: str, pdf: object
) -> None:
    import gzip
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    text = "Some words about the bridge that stand in it. " * 40
    whole: bytes
    if name == "a.docx":
        whole = docx_of(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
    elif name == "a.odt":
        whole = odt_of(f"<text:p>{text}</text:p>")
    elif name == "a.epub":
        whole = epub_of({"a": text}, ["a"])
    elif name == "a.pdf":
        whole = pdf([[(60, 700 - 12 * n, 10, text[:60]) for n in range(40)]])  # type: ignore[operator]
    elif name == "a.zip":
        whole = packed({"x.txt": text, "y.txt": text[::-1]})
    elif name == "a.rtf":
        whole = b"{\\rtf1 " + text.encode() + b"\\par}"
    elif name == "a.parquet":
        out = io.BytesIO()
        pq.write_table(pa.table({"text": [text] * 5}), out)
        whole = out.getvalue()
    elif name == "a.jsonl.gz":
        whole = gzip.compress(
            "".join(json.dumps({"text": f"{n} {hash((n, text))} {text}"}) + "\n" for n in range(50)).encode()
        )
    elif name == "a.tar.gz":
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for number in range(5):
                entry = tarfile.TarInfo(f"{number}.txt")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        whole = out.getvalue()
    else:
        whole = json.dumps({"cells": [{"cell_type": "markdown", "source": text}], "nbformat": 4}).encode()
    assert extracted({name: whole}).outcomes[name][0] == "ok"
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        cut = whole[: max(1, int(len(whole) * share))]
        outcome, reason = extracted({f"{share}/{name}": cut}).outcomes[f"{share}/{name}"]
        assert outcome in ("ok", "unreadable", "empty", "skipped")
        assert reason, (share, outcome)
        if outcome == "ok":
            assert name in ("a.pdf", "a.rtf", "a.jsonl.gz", "a.tar.gz"), (share, reason)


def _changed(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, doubled, left out, or made to claim much."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, what = rng.randrange(len(out) + 1), rng.randrange(5)
        if what == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del out[at : at + rng.randrange(1, 20)]
        elif what == 2:
            out[at:at] = out[at : at + rng.randrange(1, 60)]
        elif what == 3:
            out[at:at] = rng.choice(
                (b"\0", b"\xff\xfe", b"{", b"<", b"\\u", b"9" * 20, b"-1", b"=?utf-8?b?x?=", b"\r\n\r\n", b'"')
            )
        else:
            out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
    return bytes(out) or b"x"


@pytest.mark.slow
def test_files_when_bytes_are_changed_anywhere_then_no_reader_falls_over(extracted: "Extract") -> None:
    rng = random.Random(5)
    whole = {
        "docx": docx_of(
            '<w:p><w:pPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr></w:pPr><w:r><w:t>a</w:t></w:r></w:p>'
        ),
        "odt": odt_of('<text:p>hello<text:s text:c="3"/></text:p>'),
        "epub": epub_of({"a": "<p>hi</p>"}, ["a"], "<dc:date>1999</dc:date>"),
        "rtf": rb"{\rtf1\ansi{\fonttbl{\f0 A;}} Caf\'e9 \u8211? text\par \trowd\intbl a\cell\row {\footnote n}}",
        "eml": MAIL.encode(),
        "mbox": b"From a@b.org Mon May  3 10:00:00 2021\n" + MAIL.encode(),
        "ipynb": b'{"cells": [{"cell_type": "markdown", "source": ["x"]}], "nbformat": 4, "metadata": {"kernelspec": {"language": "x"}}}',
        "zip": packed({"a.txt": "words", "b/c.json": '{"text": "x"}'}),
        "jsonl": b'{"text":"x","license":"MIT","date":"2020-01-01","metadata":{"a":1}}\n{"messages":[{"role":"user","content":"x"}]}\n',
        "yaml": b"a: [1, {b: c}]\ntext: words\n",
        "csv": b'text,b\n"x ""y""",2\n',
        "html": b'<html lang=x><meta charset=utf-8><script type="application/ld+json">{"@type":"Article"}</script><ul><li>x</ul><p>word',
    }
    files: dict[str, bytes | str] = {
        f"{n}.{kind}": _changed(data, rng) for kind, data in whole.items() for n in range(60)
    }
    found = extracted(files)
    assert len([name for name in found.outcomes if "!" not in name and "#" not in name]) == len(files)
    assert not [reason for _, reason in found.outcomes.values() if "has a fault" in str(reason)]
    assert not [
        name
        for name, (outcome, reason) in found.outcomes.items()
        if outcome in ("unreadable", "skipped") and not reason
    ]

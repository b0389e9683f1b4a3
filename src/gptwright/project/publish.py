"""A trained model becomes a directory with a manifest. Its id is made of the manifest's hash, so it can never mean two things."""

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.files import TEMPORARY, read_json, write_json
from gptwright.core.hashing import b2_file, b2_json

if TYPE_CHECKING:
    from gptwright.model.transformer import Transformer

MANIFEST = "manifest.json"


def publish_model(
    models: Path,
    project: str,
    stage: str,
    model: "Transformer",
    tokenizer_dir: Path,
    facts: dict[str, Any],
    adapter: Path | None = None,
) -> tuple[str, Path, str]:
    """Write a model directory.

    Args:
        models: the folder that holds models.
        project: the project's name.
        stage: what made it, such as "pretrain".
        model: weights; a LoRA is merged by the caller.
        tokenizer_dir: tokenizer and template to go with it.
        facts: what it was made from; no clock times, so that the same work gives the same id.
        adapter: a PEFT directory to keep beside the merged weights.

    Returns:
        Model id, directory, manifest hash.
    """
    from gptwright.model.io import save_model

    scratch = models / f"{TEMPORARY}{uuid.uuid4().hex[:8]}"
    try:
        save_model(model, scratch, tokenizer_dir)
        if adapter is not None:
            shutil.copytree(adapter, scratch / "adapter")
        return seal(scratch, models, project, stage, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def seal(folder: Path, models: Path, project: str, stage: str, facts: dict[str, Any]) -> tuple[str, Path, str]:
    """Write the manifest of a finished directory and move it to its place under ``models``."""
    files = {path.relative_to(folder).as_posix(): b2_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = {"project": project, "stage": stage, **facts, "files": files}
    digest = b2_json(manifest)
    identity = f"{project}-{stage}-{digest[3:13]}"
    target = models / identity
    if target.exists() and damaged_files(target):
        shutil.rmtree(target)
    if not target.exists():
        write_json(folder / MANIFEST, manifest)
        os.replace(folder, target)
    return identity, target, digest


def damaged_files(folder: Path) -> list[str]:
    """Names of files in a model directory that are missing or differ from the manifest."""
    if not (folder / MANIFEST).is_file():
        return [MANIFEST]
    files: dict[str, str] = read_json(folder / MANIFEST)["files"]
    return [name for name, digest in files.items() if not (folder / name).is_file() or b2_file(folder / name) != digest]

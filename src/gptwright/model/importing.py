"""Open models in: a GGUF file, a Hugging Face directory, or one of them inside an installed package, as a model directory of ours."""

from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from gptwright.core.errors import UserError
from gptwright.model.gguf import import_gguf
from gptwright.model.io import load_model, save_model

PACKAGE = "package:"


def import_model(
    source: str | Path, out_dir: str | Path, dtype: torch.dtype | None = None, extra: dict[str, Any] | None = None
) -> Path:
    """Read a model that was made elsewhere and write it as a Hugging Face directory, through our own classes.

    Args:
        source: a .gguf file, a Hugging Face directory, or "package:NAME" for the GGUF file that an installed package ships.
        out_dir: replaced as a whole.
        dtype: of the weights written. None: the source's; what was quantized becomes fp32.
        extra: further JSON files to write, name -> content (for example the manifest).

    Returns:
        ``out_dir``.

    Raises:
        UserError: it cannot be found, or is not supported; see ``load_model`` and ``import_gguf``.
    """
    path = locate(source)
    if path.is_file():
        return import_gguf(path, out_dir, dtype or torch.float32, extra)
    return save_model(load_model(path, dtype=dtype), out_dir, tokenizer_dir=path, extra=extra)


def locate(source: str | Path) -> Path:
    """The file or directory that a source means.

    Raises:
        UserError: there is none, or more than one.
    """
    text = str(source)
    if text.startswith(PACKAGE):
        name = text.removeprefix(PACKAGE)
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError as error:
            raise UserError(f"the package {name} is not installed", fix=f"Run: pip install {name}") from error
        return _only([Path(str(f.locate())) for f in files if f.suffix == ".gguf"], text)
    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        return _only(sorted(path.glob("*.gguf")), text)
    if path.is_dir() or path.suffix == ".gguf":
        return path
    raise UserError(
        "neither a GGUF file nor a model directory", where=text, fix="Give a .gguf file or a Hugging Face directory"
    )


def _only(found: list[Path], where: str) -> Path:
    if len(found) != 1:
        raise UserError(
            "no config.json and no GGUF file" if not found else f"{len(found)} GGUF files",
            where=where,
            fix="Give the model's own directory or file" if not found else f"Name one, such as {found[0]}",
        )
    return found[0]

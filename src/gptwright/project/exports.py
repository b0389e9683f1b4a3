"""A model in the formats of other tools. Whatever is written is read back, here and by other readers that are installed, and compared."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from gptwright.core.errors import GptwrightError, UserError
from gptwright.core.files import atomic_dir, read_json, write_json
from gptwright.model.compare import (
    PROMPT,
    Check,
    judge,
    llamacpp_check,
    probe,
    tolerance_of,
    transformers_check,
)
from gptwright.model.gguf import GgufDtype, export_gguf, model_from_gguf
from gptwright.model.gguf_header import read_gguf
from gptwright.model.io import copy_tokenizer, load_model, save_model
from gptwright.model.lora import CONFIG, is_adapter, load_adapter, merge_lora, read_base
from gptwright.model.transformer import Transformer
from gptwright.model.vocab import vocab_from_gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMATS = {
    "hf": "Hugging Face directory",
    "gguf": "GGUF file",
    "ollama": "GGUF file and Modelfile (ollama create NAME -f Modelfile)",
    "onnx": "ONNX graph",
    "peft": "PEFT adapter",
}
_HF_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# What vocabularies differ in: digits, apostrophes, runs of space, other scripts, text that looks like a control token.
TEXTS = (PROMPT, "I'll pay 1234.5 €,\n\n  don't!\t\tOK", "日本語 ٣٤٥ émigré 🙂", "<|im_end|> </s> <s>", "a  b ")
# transformers holds a second copy in fp32; beyond this the check costs more memory than a machine that just fits the model has.
_TRANSFORMERS_UP_TO_PARAMS = 2_000_000_000


@dataclass(frozen=True)
class Source:
    """The model that is written.

    Args:
        name: for metadata.
        path: its Hugging Face directory.
        model: its weights, in fp32.
        license: SPDX id, if known.
    """

    name: str
    path: Path
    model: Transformer
    license: str | None

    @property
    def gguf_name(self) -> str:
        """A file name that needs no quotes in a Modelfile."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.") + ".gguf"

    @property
    def tokenizer(self) -> "Tokenizer | None":
        """Its tokenizer, if it has one."""
        from tokenizers import Tokenizer

        file = self.path / "tokenizer.json"
        return Tokenizer.from_file(str(file)) if file.is_file() else None


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        files: name -> bytes.
        checks: what readers made of it.
        notes: what a user should know.
        dtype: of the matrices.
    """

    files: dict[str, int]
    checks: list[Check]
    notes: list[str]
    dtype: str


def export(source: Source, to: str, out: Path, dtype: str | None) -> Export:
    """Write a model and check what was written.

    Args:
        source: the model.
        to: a key of ``FORMATS``.
        out: a folder that does not exist or is empty; it is filled as a whole or not at all.
        dtype: f32, f16, bf16 or (GGUF) q8_0; None: the model's own for hf, f16 for gguf and ollama, f32 for onnx.

    Raises:
        UserError: no such format or dtype, the folder is not empty, or the model cannot be written so.
    """
    if to not in FORMATS:
        raise UserError(f"no such format: {to}", fix=f"Formats: {', '.join(FORMATS)}")
    choices = {"hf": tuple(_HF_DTYPES), "onnx": ("f32",), "peft": ()}.get(to, get_args(GgufDtype))
    if dtype is not None and dtype not in choices:
        fix = f"Choose {', '.join(choices)}" if choices else "An adapter keeps its own"
        raise UserError(f"{to} cannot be written as {dtype}", where="--dtype", fix=fix)
    if out.exists() and not out.is_dir():
        raise UserError("is a file", where=str(out), fix="Choose a new folder")
    if out.exists() and any(out.iterdir()):
        raise UserError("is not empty", where=str(out), fix="Choose a new folder")
    write = {"hf": _hf, "gguf": _gguf, "ollama": _ollama, "onnx": _onnx, "peft": _peft}[to]
    with atomic_dir(out) as folder:
        dtype, checks, notes = write(source, folder, dtype)
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    return Export(files, checks, notes, dtype)


Written = tuple[str, list[Check], list[str]]


def _probe(source: Source, vocab_size: int | None = None) -> tuple[list[int], torch.Tensor]:
    tokenizer = source.tokenizer
    ids = list(range(48)) if tokenizer is None else list(tokenizer.encode(PROMPT).ids)
    known = source.model.config.vocab_size if tokenizer is None else tokenizer.get_vocab_size(with_added_tokens=True)
    return probe(source.model, ids, vocab_size or min(known, source.model.config.vocab_size))


@torch.no_grad()
def _here(
    expected: torch.Tensor, ids: Sequence[int], model: Transformer, tolerance: float, same: bool | None = None
) -> Check:
    found = model.logits(model(torch.tensor([list(ids)])))[0].float()[:, : expected.shape[1]]
    return judge("read back here", expected, found, tolerance, same)


def is_small(model: Transformer) -> bool:
    """Whether a second copy of a model, for transformers, is no burden."""
    return sum(p.numel() for p in model.parameters()) <= _TRANSFORMERS_UP_TO_PARAMS


def _hf(source: Source, folder: Path, dtype: str | None) -> Written:
    kind = _HF_DTYPES[dtype] if dtype else _stored_dtype(source.path)
    save_model(source.model, folder, source.path, kind)
    for name in ("README.md", "LICENSE", "NOTICE"):  # a card and a licence go with the weights
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)
    ids, expected = _probe(source)
    name = next(key for key, value in _HF_DTYPES.items() if value == kind)
    tolerance = tolerance_of(name, expected)
    checks = [_here(expected, ids, load_model(folder), tolerance)]
    if is_small(source.model):
        checks.append(transformers_check(folder, source.model.config, ids, expected, tolerance))
    return name, checks, []


def _stored_dtype(path: Path) -> torch.dtype:
    data = read_json(path / "config.json")
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(
        str(data.get("dtype") or data.get("torch_dtype")), torch.float32
    )


def _gguf(source: Source, folder: Path, dtype: str | None) -> Written:
    kind: Any = dtype or "f16"
    file = export_gguf(source.model, folder / source.gguf_name, source.path, kind, source.name, source.license)
    head = read_gguf(file)
    again = model_from_gguf(head)
    if odd := misfits(source.model, again, kind):
        raise GptwrightError(f"{odd} came back from the GGUF file with other weights; nothing was written")
    ids, expected = _probe(source, again.config.vocab_size)
    tolerance = tolerance_of(kind, expected)
    encode = _encoder(source.path)
    rebuilt = folder / ".tokenizer"
    rebuilt.mkdir()
    vocab_from_gguf(head.fields, rebuilt, again.config.seq_len, str(file))
    back = _encoder(rebuilt)
    shutil.rmtree(rebuilt)
    same = all(encode(text) == back(text) for text in TEXTS)
    checks = [_here(expected, ids, again, tolerance, same)]
    if is_small(source.model):
        checks.append(transformers_check(file, again.config, ids, expected, tolerance))
    checks.append(llamacpp_check(file, again.config, ids, expected, tolerance, TEXTS, encode))
    config, notes = source.model.config, []
    if config.window is not None:
        notes.append(f"its sliding window is unknown to llama.cpp; the context is written as {config.window:,}")
    if "NFC" in json.dumps(read_json(source.path / "tokenizer.json").get("normalizer")):
        notes.append("its tokenizer composes characters first (NFC), llama.cpp does not: give it composed text")
    if again.config.vocab_size < config.vocab_size:
        notes.append(f"{config.vocab_size - again.config.vocab_size} embedding rows without a token are left out")
    return kind, checks, notes


# Half a step of each format, as a share of a tensor's largest weight: 11 and 8 significant bits.
# q8_0 has blocks of 127 steps; a step is rounded to f16 itself, which for the largest weight counts 127 times.
_ROUNDING = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8, "q8_0": (0.5 + 127 * 2.0**-11) / 127}


def misfits(model: Transformer, again: Transformer, dtype: str) -> str | None:
    """The first parameter that differs by more than rounding to a dtype explains; rows cut from the embedding's end aside."""
    found = again.state_dict()
    for name, value in model.state_dict().items():
        part = value[: len(found[name])]
        if float((found[name] - part).abs().max()) > _ROUNDING[dtype] * float(part.abs().max()):
            return name
    return None


def _encoder(folder: Path) -> Callable[[str], list[int]]:
    """Ids of a text, in which control tokens are text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _ollama(source: Source, folder: Path, dtype: str | None) -> Written:
    from gptwright.project.ollama import write_modelfile

    kind, checks, notes = _gguf(source, folder, dtype)
    config = source.model.config
    text, said = write_modelfile(source.path, source.gguf_name, config.window or config.seq_len, source.license)
    (folder / "Modelfile").write_text(text, encoding="utf-8", newline="\n")
    return kind, checks, [*notes, said]


def _onnx(source: Source, folder: Path, dtype: str | None) -> Written:
    from gptwright.model.onnx import export_onnx, onnx_logits

    file = export_onnx(source.model, folder)
    if source.tokenizer is not None:
        copy_tokenizer(source.path, folder)
    shutil.copyfile(source.path / "config.json", folder / "config.json")
    ids, expected = _probe(source)
    found = onnx_logits(file, ids)[:, : expected.shape[1]]
    return "f32", [judge("onnxruntime", expected, found, tolerance_of("f32", expected))], []


def _peft(source: Source, folder: Path, dtype: str | None) -> Written:
    adapter = source.path / "adapter"
    if not is_adapter(adapter):
        raise UserError(
            f"{source.name} has no adapter",
            where=str(source.path),
            fix="Only a model fine-tuned with adapter = lora can be written as peft; use --to hf",
        )
    base = read_base(adapter).resolve()
    for file in adapter.iterdir():
        if file.is_file() and file.name != CONFIG and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)
    write_json(folder / CONFIG, read_json(adapter / CONFIG) | {"base_model_name_or_path": str(base)})
    if source.tokenizer is not None:
        copy_tokenizer(source.path, folder)
    ids, expected = _probe(source)
    again = load_model(base)
    load_adapter(again, folder)
    tolerance = 10 * tolerance_of("f32", expected)  # W + BA in one matrix or apart: two orders of additions
    checks = [_here(expected, ids, merge_lora(again), tolerance), _peft_check(base, folder, ids, expected, tolerance)]
    return "f32", checks, [f"its base model is {base}; share the two together"]


def _peft_check(base: Path, folder: Path, ids: Sequence[int], expected: torch.Tensor, tolerance: float) -> Check:
    try:
        import peft
        import transformers
    except ImportError:
        return Check("peft", note='not installed (pip install "gptwright[hf]")')
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(model, folder).eval()(torch.tensor([list(ids)])).logits[0].float()
    return judge("peft", expected, found[:, : expected.shape[1]], tolerance)

"""Open models of each family, fine-tuned from the command line: a Hugging Face directory or a GGUF file in, an adapter for peft out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.families import saved
from tests.model.test_gguf_write import byte_level_tokenizer

from gptwright.core.files import read_json
from gptwright.model.io import load_model
from gptwright.project.adapting import base_of
from gptwright.project.models import ModelRef
from gptwright.project.project import Project
from gptwright.tokens.template import CHAT_TEMPLATE

SMALL = ("max_steps=2", "batch_tokens=64", "compile=off", "dtype=float32", "rank=4", "lr_other=0.02")
CASES = [
    ("gpt2", "dir", "lora"),
    ("gpt2", "gguf", "dpo"),
    ("smollm2", "dir", "dpo"),
    ("smollm2", "gguf", "lora"),
    ("qwen2", "dir", "sft"),
    ("qwen2", "gguf", "lora"),
    ("qwen3", "dir", "lora"),
    ("mistral", "dir", "lora"),
]


def open_model(kind: str, folder: Path) -> Path:
    """A tiny random model as an open one lies on disk: weights, tokenizer, chat template."""
    theirs: Path = saved(kind, folder)[1]
    byte_level_tokenizer(theirs)
    (theirs / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return theirs


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form", "method"), CASES)
def test_finetune_when_the_base_is_an_open_model_then_peft_opens_the_adapter_and_the_merged_model_is_the_same(
    kind: str, form: str, method: str, tmp_path: Path, gptwright: Any
) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    root = tmp_path / "p"
    Project.create(root, "empty")
    ask = ("--project", str(root), "--json")
    base = open_model(kind, tmp_path / "theirs")
    if form == "gguf":
        pytest.importorskip("gguf")
        gptwright("import", str(base), "--name", "open", *ask).ok()
        gptwright("export", "open", str(tmp_path / "g"), "--to", "gguf", "--dtype", "f32", *ask).ok()
        base = next((tmp_path / "g").glob("*.gguf"))
    rows: list[dict[str, Any]]
    if method == "dpo":
        rows = [{"prompt": f"say {n}", "chosen": f"it is {n}", "rejected": "no"} for n in range(6)]
    else:
        rows = [
            {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"it is {n}"}]}
            for n in range(6)
        ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"finetune.{value}" for value in SMALL] + ["model.seq_len=32"]
    options += ["finetune.adapter=lora"] if method == "dpo" else []
    given = [part for value in options for part in ("--set", value)]
    gptwright(
        "finetune", "--base", str(base), "--method", method, "--data", str(tmp_path / "rows.jsonl"), *ask, *given
    ).ok()
    model = next((root / "work" / "models").glob("p-finetune-*"))
    manifest = read_json(model / "manifest.json")
    named = base_of(Project.open(root), ModelRef(model.name, model, ""))
    assert named is not None
    start = named.path
    before, after = load_model(start), load_model(model)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        moved, ours = before.logits(before(ids)), after.logits(after(ids))
        assert manifest["methods"] == [method]
        assert (moved - ours).abs().max() > 1e-4
        theirs = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        torch.testing.assert_close(theirs(ids).logits, ours, rtol=1e-4, atol=1e-4)
        if method != "sft":
            plain = transformers.AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
            adapter = next(model.rglob("adapter_config.json")).parent
            tuned = peft.PeftModel.from_pretrained(plain, adapter).eval()
            torch.testing.assert_close(tuned(ids).logits, ours, rtol=1e-4, atol=1e-4)
            merged = tuned.merge_and_unload()
            torch.testing.assert_close(merged(ids).logits, ours, rtol=1e-4, atol=1e-4)


def test_finetune_when_the_base_is_not_there_then_says_what_to_give(tmp_path: Path, gptwright: Any) -> None:
    Project.create(tmp_path / "p", "empty")
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "assistant", "content": "yes"}]}\n')
    for base in ("nowhere", "gone.gguf", "package:no-such-package-here"):
        done = gptwright(
            "finetune", "--base", base, "--method", "lora", "--data", str(tmp_path / "rows.jsonl"),
            "--project", str(tmp_path / "p"),
        )  # fmt: skip
        assert done.code == 2
        assert "Traceback" not in done.err


def test_finetune_when_the_data_is_not_there_then_says_so_before_anything_runs(tmp_path: Path, gptwright: Any) -> None:
    Project.create(tmp_path / "p", "empty")
    done = gptwright("finetune", "--data", str(tmp_path / "gone.jsonl"), "--project", str(tmp_path / "p"))
    assert done.code == 2
    assert "gone.jsonl: no such file or folder" in done.err
    assert not (tmp_path / "p" / "work").exists()

"""Open models come in with what they are, ours go out and are compared by every reader that is installed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.families import saved
from tests.model.test_gguf_write import byte_level_tokenizer, sentence_piece_tokenizer

from gptwright.core.errors import UserError
from gptwright.model.compare import Check, judge, probe, tolerance_of
from gptwright.model.gguf_header import read_gguf
from gptwright.model.io import load_model, read_config, save_model
from gptwright.model.lora import apply_lora, merge_lora, save_adapter
from gptwright.project.exchange import export_model, find_model_file, import_model, open_gguf
from gptwright.project.exports import misfits
from gptwright.project.ollama import measure_template, write_modelfile
from gptwright.project.project import Project
from gptwright.tokens.template import CHAT_TEMPLATE, render_template


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "p", "empty")


def model_dir(kind: str, folder: Path) -> Path:
    """A model directory as it lies in a project: weights, tokenizer, template."""
    tok = byte_level_tokenizer(folder.parent / "tok")
    (tok / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return save_model(load_model(saved(kind, folder.parent / "theirs")[1]), folder, tok)


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "mistral_window", "qwen2", "qwen3"])
def test_import_when_the_family_is_known_says_what_it_is_and_was_compared(
    kind: str, project: Project, tmp_path: Path
) -> None:
    theirs = saved(kind, tmp_path / "theirs")[1]
    byte_level_tokenizer(theirs)
    (theirs / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    made = import_model(project, str(theirs), "open")
    assert made["architecture"] == json.loads((theirs / "config.json").read_text())["architectures"][0]
    assert made["license"] == "apache-2.0"
    assert made["size_bytes"] == sum(f.stat().st_size for f in theirs.iterdir())
    assert made["params"] == sum(p.numel() for p in load_model(theirs).parameters())
    assert "compared with transformers: largest logit gap" in made["report"]
    assert "DIFFER" not in made["report"]
    assert import_model(project, str(theirs), "open")["hash"] == made["hash"]
    assert read_config(project.root / made["path"]) == read_config(theirs)


def test_import_when_weights_are_bf16_keeps_their_dtype(project: Project, tmp_path: Path) -> None:
    model = load_model(saved("qwen2", tmp_path / "theirs")[1])
    source = save_model(model, tmp_path / "half", byte_level_tokenizer(tmp_path / "tok"), torch.bfloat16)
    made = import_model(project, str(source), None)
    assert load_model(project.root / made["path"], dtype=None).embedding.weight.dtype == torch.bfloat16


def test_gguf_when_exported_and_imported_again_is_the_same_model_with_its_licence(
    project: Project, tmp_path: Path
) -> None:
    folder = model_dir("qwen3", tmp_path / "m")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    made = export_model(project, str(folder), "gguf", tmp_path / "out", "f32")
    assert made["passed"], made["report"]
    assert made["files"].keys() == {"m.gguf"}
    assert [check["reader"] for check in made["checks"]] == ["read back here", "transformers", "llama.cpp"]
    assert made["checks"][0]["logit_gap"] == 0
    assert made["checks"][0]["same_tokens"] is True
    assert made["checks"][1]["logit_gap"] < 1e-4
    assert "20 embedding rows without a token are left out" in made["report"]
    again = import_model(project, str(tmp_path / "out/m.gguf"), "again")
    assert (again["license"], again["architecture"]) == ("mit", "Qwen3ForCausalLM")
    assert "GGUF with F32; kept as fp32" in again["report"]
    assert open_gguf(str(tmp_path / "out/m.gguf")) == open_gguf(str(tmp_path / "out/m.gguf"))


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_gguf_when_exported_rounded_passes_and_says_the_gap(dtype: str, project: Project, tmp_path: Path) -> None:
    made = export_model(project, str(model_dir("smollm2", tmp_path / "m")), "gguf", tmp_path / "out", dtype)
    assert made["passed"], made["report"]
    assert 0 < made["logit_gap"] < made["checks"][0]["tolerance"]
    tensors = [t for t in read_gguf(tmp_path / "out/m.gguf").tensors.values() if len(t.shape) > 1]
    bits = {t.kind.name: 8 * t.size_bytes / (t.shape[0] * t.shape[1]) for t in tensors}
    assert bits == ({"Q8_0": 8.5, "F16": 16.0} if dtype == "q8_0" else {dtype.upper(): 16.0})


@pytest.mark.parametrize("dtype", [None, "f16", "bf16"])
def test_hf_when_exported_opens_in_transformers_and_keeps_card_and_licence(
    dtype: str | None, project: Project, tmp_path: Path
) -> None:
    folder = model_dir("mistral_window", tmp_path / "m")
    (folder / "README.md").write_text("a card")
    (folder / "LICENSE").write_text("a licence")
    made = export_model(project, str(folder), "hf", tmp_path / "out", dtype)
    assert made["passed"], made["report"]
    assert [check["reader"] for check in made["checks"]] == ["read back here", "transformers"]
    assert (tmp_path / "out/LICENSE").read_text() == "a licence"
    assert made["dtype"] == (dtype or "f32")


def test_peft_when_the_model_has_an_adapter_opens_there_and_without_one_is_refused(
    project: Project, tmp_path: Path
) -> None:
    base = model_dir("smollm2", tmp_path / "models/base")
    model = load_model(base)
    apply_lora(model, 4, 8.0, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_b" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    save_adapter(model, tmp_path / "adapter", "../../base")
    tuned = save_model(merge_lora(model), tmp_path / "models/tuned", base)
    with pytest.raises(UserError, match="tuned has no adapter"):
        export_model(project, str(tuned), "peft", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    shutil.copytree(tmp_path / "adapter", tuned / "adapter")
    made = export_model(project, str(tuned), "peft", tmp_path / "out")
    assert made["passed"], made["report"]
    assert [check["reader"] for check in made["checks"]] == ["read back here", "peft"]
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


@pytest.mark.parametrize(
    ("to", "dtype", "message"),
    [
        ("zip", None, "no such format: zip. Formats: hf, gguf, ollama, onnx, peft"),
        ("hf", "q8_0", "hf cannot be written as q8_0. Choose f32, f16, bf16"),
        ("onnx", "f16", "onnx cannot be written as f16"),
        ("gguf", "q4_k", "Choose f32, f16, bf16, q8_0"),
        ("peft", "f32", "An adapter keeps its own"),
    ],
)
def test_export_when_asked_for_what_is_not_there_says_what_is(
    to: str, dtype: str | None, message: str, project: Project, tmp_path: Path
) -> None:
    folder = model_dir("gpt2", tmp_path / "m")
    with pytest.raises(UserError, match=message):
        export_model(project, str(folder), to, tmp_path / "out", dtype)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(UserError, match="is not empty"):
        export_model(project, str(folder), "hf", tmp_path / "full")


def test_onnx_when_the_extra_is_missing_names_it_and_otherwise_agrees(project: Project, tmp_path: Path) -> None:
    folder = model_dir("qwen2.5", tmp_path / "m")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"this needs onnx.*gptwright\[onnx\]"):
            export_model(project, str(folder), "onnx", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    made = export_model(project, str(folder), "onnx", tmp_path / "out")
    assert made["passed"], made["report"]
    assert {"model.onnx", "tokenizer.json", "config.json"} <= made["files"].keys()


def test_judge_when_a_clear_token_or_a_shape_differs_fails() -> None:
    model = load_model_of()
    ids, expected = probe(model, list(range(20)), 320)
    assert len(ids) == 36
    assert ids[20:] == expected.argmax(-1)[19:-1].tolist()  # greedy: each follows from those before it
    assert judge("same", expected, expected.clone(), tolerance_of("f32", expected)).passed
    flipped = expected.clone()
    flipped[3] = -flipped[3]
    assert judge("other", expected, flipped, tolerance_of("f32", expected)).greedy_equal is False
    assert not judge("short", expected, expected[:, :-1], 1.0).passed
    assert not judge("nan", expected, expected * float("nan"), 1.0).passed
    assert Check("none", note="not installed").passed
    assert not Check("tokens", 0.0, 1.0, True, False).passed


def load_model_of() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        return load_model(saved("smollm2", Path(scratch))[1])


TEMPLATES = {
    "ours": CHAT_TEMPLATE,
    "default system": "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|s|>You are kind.<|e|>\n' }}"
    "{% endif %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|e|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "instruct": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
}
TALKS: list[list[tuple[str, str]]] = [
    [("user", 'say "hi"\n{{ twice }}')],
    [("user", "a"), ("assistant", "b"), ("user", "c")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "ünï 🙂"), ("user", "d")],
]


def run_go(template: str, messages: list[dict[str, str]]) -> str:
    """The few forms of Go's text/template that are written here."""
    import re

    def text_of(part: str) -> str:
        found = re.findall(r'\{\{ ("(?:[^"\\]|\\.)*"|\.Content) \}\}', part)
        return "".join(message["content"] if piece == ".Content" else json.loads(piece) for piece in found)

    lines = template.split("\n")
    assert lines[0] == "{{- range $i, $message := .Messages }}"
    out = []
    for number, message in enumerate(messages):
        for line in lines[1:-2]:
            if line.startswith("{{- if eq $i 0 }}"):
                out.append(text_of(line) if number == 0 and message["role"] != "system" else "")
            elif re.match(rf'\{{\{{- (?:else )?if eq .Role "{message["role"]}" \}}\}}', line):
                out.append(text_of(line.split("}}", 1)[1]))
    return "".join(out) + text_of(lines[-1].removeprefix("{{- end }}"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_go_template_when_measured_gives_the_text_of_the_jinja_template(name: str) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    wraps = measure_template(TEMPLATES[name], special)
    assert wraps is not None
    for talk in TALKS:
        messages = [{"role": role, "content": content} for role, content in talk]
        if {m["role"] for m in messages} <= wraps.around.keys():
            expected = render_template(TEMPLATES[name], messages, add_generation_prompt=True, special_tokens=special)
            assert run_go(wraps.go_template(), messages) == expected
    assert ("system" in wraps.around) == (name != "instruct")


@pytest.mark.parametrize(
    "source", ["{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}", "{{ oops("]
)
def test_template_when_it_does_more_than_wrap_is_left_out(source: str) -> None:
    assert measure_template(source, {}) is None


def test_ollama_when_exported_has_a_modelfile_with_template_stops_and_context(project: Project, tmp_path: Path) -> None:
    folder = model_dir("smollm2", tmp_path / "my model")
    made = export_model(project, str(folder), "ollama", tmp_path / "out", "q8_0")
    assert made["passed"], made["report"]
    assert made["files"].keys() == {"my-model.gguf", "Modelfile"}
    lines = (tmp_path / "out/Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./my-model.gguf"
    assert {'PARAMETER stop "<|endoftext|>"', 'PARAMETER stop "<|im_end|>"', "PARAMETER num_ctx 64"} <= set(lines)
    assert lines[1] == 'TEMPLATE """{{- range $i, $message := .Messages }}'
    assert "chat template measured and rewritten" in made["notes"]


def test_modelfile_when_the_vocabulary_adds_bos_leaves_it_out_of_the_template(tmp_path: Path) -> None:
    folder = sentence_piece_tokenizer(tmp_path / "tok")
    (folder / "chat_template.jinja").write_text(TEMPLATES["instruct"])
    text, said = write_modelfile(folder, "m.gguf", 64, "MIT")
    assert said == "chat template measured and rewritten"
    assert "<s>" not in text
    assert 'LICENSE "MIT"' in text
    (folder / "chat_template.jinja").write_text(
        TEMPLATES["instruct"].replace("'[INST] '", "bos_token + '[INST] '")[15:]
    )
    text, said = write_modelfile(folder, "m.gguf", 64, None)
    assert "TEMPLATE" not in text
    assert "left to Ollama" in said


def test_path_when_it_is_no_model_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "x.bin").touch()
    with pytest.raises(UserError, match="no such file or directory"):
        find_model_file(str(tmp_path / "none"))
    with pytest.raises(UserError, match="neither a GGUF file nor"):
        find_model_file(str(tmp_path / "x.bin"))


def test_weights_when_one_is_off_by_more_than_rounding_are_named() -> None:
    model, other = load_model_of(), load_model_of()
    assert misfits(model, other, "f32") is None
    with torch.no_grad():
        other.blocks[1].feed_forward.down.weight[3, 5] += 0.01
    assert misfits(model, other, "f32") == misfits(model, other, "f16") == "blocks.1.feed_forward.down.weight"

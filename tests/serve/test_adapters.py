"""Adapters by name over HTTP: in one batch with their base, as good as alone, and right after a promotion or another training."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.core.ledger import Ledger
from gptwright.infer import opening
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.model.config import ModelConfig
from gptwright.model.io import load_model, save_model
from gptwright.model.lora import apply_lora, load_adapter, merge_lora, save_adapter
from gptwright.model.transformer import Transformer
from gptwright.project.project import Project
from gptwright.project.shelf import Shelf
from gptwright.release.gate import Verdict
from gptwright.tokens.tokenizer import train_tokenizer

BASE, TUNED = "tiny-pretrain-0000000001", "tiny-finetune-0000000002"
PROMPTS = ["the cat", "a hat on the mat", "sat sat", "on"]


def _randomly(model: Transformer, seed: int, scale: float) -> Transformer:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def _adapter(base: Path, folder: Path, seed: int, named: str | None = None) -> Transformer:
    model = load_model(base, torch.float32)
    apply_lora(model, rank=4, alpha=8.0, seed=seed)
    save_adapter(_randomly(model, seed, 0.1), folder, named or base)
    return merge_lora(model)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base, a model tuned from it, and two adapters beside."""
    root = tmp_path_factory.mktemp("project") / "tiny"
    tokenizer = train_tokenizer(
        ["the cat sat on the mat and the hat of the cat " * 20], 270, root / "work" / "tokenizer"
    )
    shape = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_head": 16, "d_ff": 128, "seq_len": 96}
    config = ModelConfig(family="modern", vocab_size=tokenizer.padded_vocab_size, **shape)
    models = root / "work" / "models"
    base = save_model(_randomly(Transformer(config), 0, 0.2), models / BASE, root / "work" / "tokenizer")
    tuned = _adapter(base, root / "tuned", 3, named=f"../../{BASE}")
    save_model(tuned, models / TUNED, root / "work" / "tokenizer")
    shutil.move(root / "tuned", models / TUNED / "adapter")
    for seed, name in enumerate(("formal", "short"), 1):
        _adapter(base, root / "adapters" / name, seed)
    (root / "gptwright.toml").write_text(
        '[project]\nname = "tiny"\n[serve]\nengine = "builtin"\n'
        'adapters = { formal = "adapters/formal", short = "adapters/short" }\n'
    )
    with Ledger.open(root / "work" / "ledger.sqlite") as ledger:
        for name, stage in ((BASE, "pretrain"), (TUNED, "finetune")):
            ledger.add_artifact("model", stage=stage, name=name, path=f"work/models/{name}", hash="b2:" + name)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    root = Path(shutil.copytree(made, tmp_path / "tiny"))
    for name in ("formal", "short"):  # their base's path is the first project's
        config = root / "adapters" / name / "adapter_config.json"
        config.write_text(config.read_text().replace(str(made), str(root)))
    return Project.open(root)


@pytest.fixture
def shelf(project: Project) -> Iterator[Shelf]:
    shelf = Shelf(project)
    yield shelf
    shelf.close()


def ask(url: str, model: str, prompt: str, **more: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "max_tokens": 20, "temperature": 0, **more}
    answer = httpx.post(url + "/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_adapters_when_asked_at_once_with_their_base_answer_as_each_alone_from_one_engine(
    stored: Callable[..., tuple[str, Any]], shelf: Shelf
) -> None:
    shelf.check()
    url, _ = stored(models=shelf)
    names = [BASE, "formal", "short", TUNED]
    alone = {(name, prompt): ask(url, name, prompt) for name in names for prompt in PROMPTS}
    assert {answer["model"] for answer in alone.values()} == set(names)
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda key: ask(url, *key), alone))
    texts = [answer["choices"][0]["text"] for answer in alone.values()]
    assert [answer["choices"][0]["text"] for answer in together] == texts
    assert len(set(texts)) > len(names)
    assert len(shelf._engines) == 1
    one = ask(url, "short", "the cat", n=2, seed=4, temperature=0.9)
    assert ask(url, "short", "the cat", n=2, seed=4, temperature=0.9)["choices"] == one["choices"]


def test_adapters_when_they_answer_say_what_their_merged_weights_say(
    start: Callable[..., tuple[str, Any]], shelf: Shelf, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        opening, "fast_dtype", lambda *_: torch.float32
    )  # in bf16 merging rounds, and random weights are close calls
    url, _ = start(models=shelf)
    merged = load_model(project.root / "work" / "models" / BASE, torch.float32)
    load_adapter(merged, project.root / "adapters" / "formal")
    merge_lora(merged)
    tokenizer = shelf.engine(BASE)[1].tokenizer
    config = GenerationConfig(temperature=0, max_tokens=20)
    with Engine(merged, tokenizer) as engine:  # type: ignore[arg-type]
        for prompt in PROMPTS:
            assert ask(url, "formal", prompt)["choices"][0]["text"] == engine.complete(prompt, config).text
        ids = engine.encode_prompt("the cat sat")
        expected = [score.logprob for score in engine.score(ids)]
    echoed = ask(url, "formal", ids, max_tokens=0, echo=True, logprobs=0)  # type: ignore[arg-type]
    found = echoed["choices"][0]["logprobs"]["token_logprobs"]
    assert found[0] is None
    assert found[1:] == pytest.approx(expected[1:], abs=1e-3)
    plain = ask(url, BASE, ids, max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]  # type: ignore[arg-type]
    assert found[1:] != pytest.approx(plain["token_logprobs"][1:], abs=0.05)
    vectors = [
        httpx.post(url + "/v1/embeddings", json={"model": name, "input": "the cat"}).json()["data"][0]["embedding"]
        for name in (BASE, "formal")
    ]
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)


def test_draft_when_set_changes_no_answer_and_must_be_there(project: Project) -> None:
    plain, guessing = Shelf(project), Shelf(Project.open(project.root, overrides=[f"serve.draft={BASE}"]))
    other = Shelf(Project.open(project.root, overrides=[f"serve.draft={TUNED}", "serve.share_base=false"]))
    config = GenerationConfig(temperature=0, max_tokens=30)
    try:
        expected = plain.engine(BASE)[1]
        assert guessing.engine(BASE)[1]._scheduler.drafter.__class__.__name__ == "PromptLookup"  # type: ignore[union-attr]
        drafted = other.engine(BASE)[1]
        if drafted._scheduler.runner.exact:  # type: ignore[union-attr]
            assert drafted._scheduler.drafter.__class__.__name__ == "DraftModel"  # type: ignore[union-attr]
        ids = expected.encode_prompt("the cat")
        assert drafted.submit(ids, config).result().ids == expected.submit(ids, config).result().ids
    finally:
        for shelf in (plain, guessing, other):
            shelf.close()
    with pytest.raises(UserError, match="no such model"):
        Shelf(Project.open(project.root, overrides=["serve.draft=nobody"])).check()


def test_metrics_when_adapters_answer_count_them_at_their_base(
    stored: Callable[..., tuple[str, Any]], shelf: Shelf
) -> None:
    url, _ = stored(models=shelf)
    ask(url, "formal", "the cat")
    ask(url, "short", "the cat")
    lines = httpx.get(url + "/metrics").text.splitlines()
    assert [line for line in lines if line.startswith("vllm:num_requests_running{")] == [
        f'vllm:num_requests_running{{model_name="{BASE}"}} 0.0'
    ]
    assert any(line.startswith('vllm:generation_tokens_total{model_name="formal"}') for line in lines)


def test_models_when_listed_name_the_parent_of_each_adapter(
    start: Callable[..., tuple[str, Any]], shelf: Shelf
) -> None:
    url, _ = start(models=shelf)
    rows = {row["id"]: row for row in httpx.get(url + "/v1/models").json()["data"]}
    assert {name: row["parent"] for name, row in rows.items()} == {
        BASE: None,
        TUNED: BASE,
        "formal": BASE,
        "short": BASE,
    }
    assert httpx.get(url + "/v1/models/formal").json() == rows["formal"]
    assert rows["formal"]["root"] == "formal"


def test_release_when_promoted_is_answered_at_once_and_its_adapters_stay_right(
    start: Callable[..., tuple[str, Any]], shelf: Shelf, project: Project
) -> None:
    for name in (BASE, TUNED):
        project.registry.candidate(name, "b2:" + name, f"work/models/{name}", Verdict(True, (), None))
    project.registry.promote(BASE)
    url, _ = start(models=shelf)
    expected = {name: ask(url, name, "the cat")["choices"][0]["text"] for name in (BASE, TUNED, "formal")}
    assert ask(url, "production", "the cat")["model"] == BASE
    streamed: list[str] = []
    begun = threading.Event()

    def listen() -> None:
        body = {"model": "production", "prompt": "the cat", "max_tokens": 80, "temperature": 0, "stream": True}
        with httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                streamed.append(line)
                begun.set()

    stream = threading.Thread(target=listen)
    stream.start()
    assert begun.wait(30)
    project.registry.promote(TUNED, "a test")
    now = ask(url, "production", "the cat")
    assert (now["model"], now["choices"][0]["text"]) == (TUNED, expected[TUNED])
    assert ask(url, "formal", "the cat")["choices"][0]["text"] == expected["formal"]
    stream.join(30)
    assert streamed[-2:] == ["data: [DONE]", ""]
    assert all(f'"model": "{BASE}"' in line or f'"model":"{BASE}"' in line for line in streamed if '"choices"' in line)


def test_adapter_when_trained_anew_under_its_name_is_read_anew(
    start: Callable[..., tuple[str, Any]], shelf: Shelf, project: Project
) -> None:
    url, _ = start(models=shelf)
    before = [ask(url, "formal", prompt)["choices"][0]["text"] for prompt in PROMPTS]
    _adapter(project.root / "work" / "models" / BASE, project.root / "adapters" / "formal", 9)
    after = [ask(url, "formal", prompt)["choices"][0]["text"] for prompt in PROMPTS]
    assert before != after
    shutil.rmtree(project.root / "adapters" / "formal")
    gone = httpx.post(url + "/v1/completions", json={"model": "formal", "prompt": "a"})
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "model")
    assert ask(url, "short", "the cat")


def test_adapter_when_its_base_is_deleted_or_not_to_be_shared_is_answered_by_merged_weights(project: Project) -> None:
    shelf = Shelf(Project.open(project.root, overrides=["serve.share_base=false"]))
    try:
        assert {row.id: row.parent for row in shelf.list()}[TUNED] is None
        assert isinstance(shelf.engine(TUNED)[1], Engine)
    finally:
        shelf.close()
    shutil.rmtree(project.root / "work" / "models" / BASE)
    alone = Shelf(project)
    try:
        assert isinstance(alone.engine(TUNED)[1], Engine)
    finally:
        alone.close()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("nothing", "is no PEFT directory"),
        ("narrow", "has shape"),
        ("no base", "is not on this machine"),
        ("taken", "has that name already"),
        ("openvino", "has no adapters"),
    ],
)
def test_adapter_when_it_cannot_serve_is_refused_at_the_start(project: Project, fault: str, says: str) -> None:
    root, more = project.root, []
    folder = root / "adapters" / "formal"
    if fault == "nothing":
        shutil.rmtree(folder)
    elif fault == "narrow":
        config = load_model(root / "work" / "models" / BASE, torch.float32).config
        other = save_model(
            Transformer(config.model_copy(update={"d_ff": 64})), root / "other", root / "work" / "tokenizer"
        )
        _adapter(other, folder, 1, named=str(root / "work" / "models" / BASE))
    elif fault == "no base":
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/nowhere"}')
    elif fault == "taken":
        text = (root / "gptwright.toml").read_text()
        (root / "gptwright.toml").write_text(text.replace("formal =", f"{TUNED} ="))
    else:
        more = ["serve.engine=openvino"]
    shelf = Shelf(Project.open(root, overrides=more))
    with pytest.raises(UserError, match=says) as caught:
        shelf.check()
    assert "[serve] adapters" in (caught.value.where or "")

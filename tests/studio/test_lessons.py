"""Every lesson on tiny random models of both families: what is shown is what the tensors hold."""

import importlib
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.infer.config import GenerationConfig
from gptwright.model.config import ModelConfig
from gptwright.model.io import load_model, save_model
from gptwright.model.transformer import Transformer, rope_tables
from gptwright.studio import lessons
from gptwright.studio.lessons import attention, common, loss, sampling, tokens
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

NAMES = ("tokens", "attention", "loss", "sampling")
SENTENCE = "the cat sat on the mat and the cat sat on the hat"


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lessons") / "tokenizer"
    train_tokenizer([SENTENCE + " of the weekend. "] * 20, 300, folder)
    return folder


@pytest.fixture(scope="module", params=["modern", "gpt2"])
def model_dir(request: pytest.FixtureRequest, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = Tokenizer.load(tokenizer_dir).padded_vocab_size
    config = ModelConfig(
        family=request.param,
        vocab_size=size,
        n_layers=2,
        d_model=64,
        n_heads=4,
        n_kv_heads=2 if request.param == "modern" else 4,
        d_head=16,
        d_ff=96,
        seq_len=96,
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.2 if parameter.ndim > 1 else 1 + 0.2 * noise)
    return save_model(model, tmp_path_factory.mktemp("models") / request.param, tokenizer_dir=tokenizer_dir)


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"gptwright.studio.lessons.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_lesson_when_run_on_a_tiny_model_then_it_shows_and_asks(name: str, model_dir: Path) -> None:
    data, text = module_of(name).run(model_dir, SENTENCE)
    assert text.splitlines()[-1] == f"Question: {data['question']}"
    assert max(map(len, text.splitlines()[:-1])) < 160
    assert json.loads(json.dumps(data)) == data


@pytest.mark.parametrize("name", NAMES)
def test_lesson_answers_when_right_or_wrong_then_the_tensors_decide(name: str, model_dir: Path) -> None:
    check = module_of(name).check
    measured = check(0.0, model_dir, SENTENCE).measured
    assert check(measured, model_dir, SENTENCE).right
    wrong = check(measured * 1.5 + 1, model_dir, SENTENCE)
    assert not wrong.right
    assert wrong.text.startswith("Not quite")
    assert not check(math.nan, model_dir, SENTENCE).right


def test_attention_lesson_when_recomputed_then_output_equals_the_models(model_dir: Path) -> None:
    model = load_model(model_dir).double()
    ids = torch.randint(8, 256, (2, 20), generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rope = None
    if model.positions is None:
        rope = rope_tables(torch.arange(20)[None], 16, model.config.rope_theta, torch.float64)
    for block in model.blocks:
        weights, output = attention.recompute(block.attention, x, rope)  # type: ignore[arg-type]
        torch.testing.assert_close(output, block.attention(x, rope, None), rtol=0, atol=1e-12)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 20, dtype=torch.float64))
        assert weights.detach().triu(1).abs().max() == 0
    maps, gap = attention.attention_maps(load_model(model_dir), ids[0].tolist())
    assert [tuple(m.shape) for m in maps] == [(4, 20, 20)] * 2
    assert gap < 1e-5


def test_attention_lesson_when_drawn_then_rows_are_whole_and_nothing_is_seen_ahead(model_dir: Path) -> None:
    data, text = attention.run(model_dir, SENTENCE)
    rows = data["drawn"]["weights"]
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in rows)
    assert all(weight == 0 for i, row in enumerate(rows) for weight in row[i + 2 :])
    assert len(data["heads"]) == 8
    assert "··" in text


def test_attention_lesson_when_a_head_copies_the_token_before_then_it_is_labelled_previous(model_dir: Path) -> None:
    model = load_model(model_dir)
    t = 2 * 24
    shifted = torch.zeros(4, t, t)
    shifted[1, torch.arange(1, t), torch.arange(t - 1)] = 1.0
    shifted[2, torch.arange(t), torch.arange(t)] = 1.0
    shifted[3, :, 0] = 1.0
    labels = {(r["layer"], r["head"]): r["label"] for r in attention.head_scores(model, [shifted, shifted], 4)}
    assert [labels[0, head] for head in (1, 2, 3)] == ["previous", "itself", "first"]


def test_attention_lesson_when_a_head_finds_what_followed_before_then_it_is_labelled_again(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 24
    induction = torch.zeros(4, 2 * n, 2 * n)
    at = torch.arange(n, 2 * n - 1)
    induction[1, at, at - n + 1] = 1.0
    monkeypatch.setattr(attention, "attention_maps", lambda model, ids: ([induction], 0.0))
    blank = torch.full((4, 2 * n, 2 * n), 1 / (2 * n))
    rows = attention.head_scores(load_model(model_dir), [blank], 4)
    assert [r["label"] for r in rows] == ["", "again", "", ""]


def test_tokens_lesson_when_a_word_grows_then_the_last_step_is_what_the_encoder_gives(tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_dir)
    for word in (" cat", " weekend", " mat", " zebra", " год"):
        steps = tokens.growth(tokenizer_dir, tokenizer, word)
        assert len(steps[0]) == len(word.encode())
        assert steps[-1] == [common.visible(tokenizer, i) for i in tokenizer.encode(word)]
        assert all(len(a) > len(b) for a, b in itertools.pairwise(steps))


def test_tokens_lesson_when_counted_then_the_vocabulary_adds_up(model_dir: Path) -> None:
    data, _ = tokens.run(model_dir, SENTENCE)
    v = data["vocabulary"]
    assert v["control"] + v["bytes"] + v["merges"] == v["size"]
    assert sum(p["bytes"] for p in data["tokens"]) == len(SENTENCE)


def test_loss_lesson_when_bits_are_summed_then_they_are_the_models_cross_entropy(model_dir: Path) -> None:
    data, _ = loss.run(model_dir, SENTENCE)
    model, tokenizer = load_model(model_dir), Tokenizer.load(model_dir)
    turns = [{"role": "user", "content": loss.OPENING}, {"role": "assistant", "content": SENTENCE}]
    rendered = tokenizer.render(turns)
    # The mask marks the answer and the end of its turn; the lesson leaves the end to its question.
    places = [i for i, learn in enumerate(rendered.loss_mask) if learn][:-1]
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([rendered.ids])))[0, :, : tokenizer.vocab_size]
    expected = torch.nn.functional.cross_entropy(
        logits[[p - 1 for p in places]], torch.tensor([rendered.ids[p] for p in places]), reduction="sum"
    )
    sums = data["guesses"]["model"]
    assert sums["bits"] == pytest.approx(float(expected) / math.log(2), rel=1e-5)
    assert sums["bits_per_byte"] == pytest.approx(sums["bits"] / len(SENTENCE))
    assert sums["perplexity"] == pytest.approx(2 ** (sums["bits"] / len(places)))
    assert data["guesses"]["bigram"] is None


def test_loss_lesson_bigram_when_asked_for_every_token_then_probabilities_add_up_to_one() -> None:
    guess = loss.Bigram(7)
    guess.add([1, 2, 3, 1, 2, 2])
    for before in (-1, 1, 2, 3, 6):
        assert sum(guess.probability(before, after) for after in range(7)) == pytest.approx(1)
    assert guess.probability(1, 2) > guess.probability(1, 3) > 0


def test_sampling_lesson_when_temperature_is_one_then_odds_are_the_models_softmax(model_dir: Path) -> None:
    data, _ = sampling.run(model_dir, SENTENCE)
    model, tokenizer = load_model(model_dir), Tokenizer.load(model_dir)
    ids = tokenizer.render([{"role": "user", "content": SENTENCE}], add_generation_prompt=True).ids
    with torch.no_grad():
        odds = model.logits(model(torch.tensor([ids])))[0, -1, : tokenizer.vocab_size].softmax(-1)
    for row in data["rows"]:
        assert row["T=1"] == pytest.approx(float(odds[row["id"]]), rel=1e-4)
    assert data["settings"]["top-k 5"]["left"] == 5
    kept = data["settings"]["top-p 0.9"]["left"]
    assert float(odds.sort(descending=True).values[:kept].sum()) >= 0.9
    assert data["settings"]["T=0.5"]["entropy_bits"] < data["settings"]["T=1"]["entropy_bits"]


def test_sampling_lesson_when_the_seed_is_the_same_then_so_is_the_text(model_dir: Path) -> None:
    texts = [answer["text"] for answer in sampling.run(model_dir, SENTENCE)[0]["answers"]]
    assert texts[0] == texts[1]
    with common.open_engine(model_dir) as engine:
        config = GenerationConfig(max_tokens=24, temperature=0.8, top_p=0.95, seed=7)
        assert engine.generate([sampling.prompt_ids(engine, SENTENCE)], [config])[0].text == texts[0]


@pytest.mark.parametrize("name", ["attention", "loss", "sampling"])
@pytest.mark.parametrize(("text", "fault"), [("  ", "empty"), ("zq " * 200, "the model reads")])
def test_lesson_when_the_sentence_cannot_be_read_then_it_says_so(
    name: str, text: str, fault: str, model_dir: Path
) -> None:
    with pytest.raises(UserError, match=fault):
        module_of(name).run(model_dir, text)


def test_lessons_when_listed_then_their_pages_exist() -> None:
    root = Path(__file__).parents[2]
    assert [lesson.name for lesson in lessons.lessons()] == list(NAMES)
    assert all((root / lesson.page).is_file() for lesson in lessons.lessons())


def test_open_lesson_when_the_name_is_wrong_then_the_nearest_is_named() -> None:
    with pytest.raises(UserError, match="The nearest: attention"):
        lessons.open_lesson(None, "atention")
    with pytest.raises(UserError, match="Lessons are: tokens"):
        lessons.open_lesson(None, "xyz")


def test_open_lesson_when_there_is_no_project_or_model_then_the_fix_is_named(tiny: Any, tmp_path: Path) -> None:
    from gptwright.project.project import Project

    with pytest.raises(UserError, match="gptwright new"):
        lessons.open_lesson(None, "loss")
    with pytest.raises(UserError, match="no model yet.*Run: gptwright run"):
        lessons.open_lesson(Project.open(tiny.make(tmp_path / "p", notes=1, chats=0)), "loss")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_open_lesson_when_the_project_ran_then_its_model_is_shown(name: str, finished: Path) -> None:
    from gptwright.project.project import Project

    data, text = lessons.open_lesson(Project.open(finished), name)
    assert data["model"].startswith("tiny-finetune-")
    assert f"gptwright learn {name} --answer" in text
    if name == "loss":  # a project has a corpus, and the simplest guess is counted on it
        assert data["guesses"]["bigram"]["bits"] > 0
        assert data["bigram_counted_on"] > 0


@pytest.mark.slow
def test_lesson_scripts_when_run_then_they_show_and_check(model_dir: Path) -> None:
    def script(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "gptwright.studio.lessons.tokens", *arguments]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)

    shown = script(str(model_dir))
    assert shown.returncode == 0
    assert "Question:" in shown.stdout
    assert shown.stderr == ""
    assert json.loads(script(str(model_dir), "--json").stdout)["vocabulary"]["bytes"] == 256
    assert script(str(model_dir), "--answer", "27").stdout.startswith("Right")
    assert script(str(model_dir), "--answer", "14").returncode == 3
    missing = script(str(model_dir / "none"))
    assert missing.returncode == 2
    assert "no tokenizer.json" in missing.stderr


def test_lessons_when_imported_then_torch_is_not() -> None:
    modules = ", ".join(f"gptwright.studio.lessons.{name}" for name in NAMES)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

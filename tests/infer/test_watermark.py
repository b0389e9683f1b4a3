"""The watermark: found in what was marked, not in what people wrote; no token gets likelier; seeds, batches and guesses go on as before."""

import math
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.request import Request
from gptwright.infer.watermark import WINDOW, Watermark, coin_tail
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

Make = Callable[..., Transformer]
MARK = Watermark(bytes(range(32)))
SAMPLED = GenerationConfig(temperature=1.0, max_tokens=80, ignore_eos=True, seed=11)


@pytest.fixture(scope="module")
def marked(make_model: Make, tokenizer: Tokenizer) -> Iterator[Engine]:
    with Engine(make_model(), tokenizer, max_batch=8, prefill_tokens=16) as engine:
        engine.watermark(MARK)
        yield engine


def _binomial_tail(n: int, p: float, k: int) -> float:
    def log_term(i: int) -> float:
        return (
            math.lgamma(n + 1)
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log(p)
            + (n - i) * math.log1p(-p)
        )

    return sum(math.exp(log_term(i)) for i in range(k, n + 1))


@pytest.mark.parametrize("flips", [1, 10, 37, 500])
def test_coin_tail_when_compared_with_the_sum_is_it(flips: int) -> None:
    for heads in range(0, flips + 1, max(1, flips // 50)):
        exact = sum(math.comb(flips, i) for i in range(heads, flips + 1)) / 2**flips
        assert coin_tail(heads, flips) == pytest.approx(exact, rel=1e-10, abs=1e-300)
    assert coin_tail(0, 0) == 1


def test_people_when_they_wrote_a_text_are_accused_as_rarely_as_said(tmp_path: Path) -> None:
    chats = pytest.importorskip("chitchat_dataset")
    lines = [turn["text"] for c in chats.Dataset().values() for turns in c["messages"] for turn in turns]
    texts = [" ".join(lines[at : at + 8]) for at in range(0, 8 * 1500, 8)]
    folder = tmp_path / "t"
    train_tokenizer(texts[:300], 1024, folder)
    tokenizer = Tokenizer.load(folder)
    found = [MARK.detect(tokenizer.encode(text)) for text in texts]
    assert len(found) == 1500
    assert sum(f.scored for f in found) / len(found) > 50
    for level in (0.1, 0.01, 0.001):
        accused = sum(f.p_value <= level for f in found)
        assert _binomial_tail(len(found), level, accused) > 1e-4, (level, accused)
    assert sum(f.p_value <= 0.1 for f in found) > 0.06 * len(found)  # nor is it blind: the p-values are used up
    mean = sum(f.z for f in found) / len(found)
    assert abs(mean) < 5 / math.sqrt(len(found))
    assert 0.9 < sum(f.z**2 for f in found) / len(found) < 1.1


def test_answers_when_marked_are_found_and_others_are_not(
    marked: Engine, make_model: Make, tokenizer: Tokenizer
) -> None:
    prompts = [[20 + i, 30 + i, 40] for i in range(24)]
    ours = [result.ids for result in marked.generate(prompts, SAMPLED)]
    with Engine(make_model(), tokenizer, max_batch=8) as plain:
        theirs = [result.ids for result in plain.generate(prompts, SAMPLED)]
    found = [MARK.detect(ids) for ids in ours]
    assert all(f.verdict == "marked" for f in found), [f.z for f in found]
    assert min(f.scored for f in found) > 60
    others = [*(MARK.detect(ids) for ids in theirs), *(Watermark(b"k" * 32).detect(ids) for ids in ours)]
    assert all(f.verdict == "too_short" and f.p_value > 0.001 for f in others), [f.z for f in others]
    excerpt = ours[0][30:60]
    assert MARK.detect([5, 6, 7, *excerpt, 9, 10]).p_value < 1e-2  # a part of it, between other words


def test_text_when_short_says_that_it_is_too_short() -> None:
    assert MARK.detect(list(range(200))).verdict == "not_found"
    assert MARK.detect([]).verdict == MARK.detect(list(range(20))).verdict == "too_short"
    assert MARK.detect([1, 2, 3]).p_value == 1


def test_tournament_when_averaged_over_windows_changes_no_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, generator=generator) * 2
    logits[7:9] = -math.inf
    logits -= logits.max()
    mean = torch.zeros(60, dtype=torch.float64)
    turns = 6000
    for turn in range(turns):
        row = logits.clone()
        MARK.tilt(row, MARK.seed((turn, 1, 2, 3)))
        assert not torch.isfinite(row[7:9]).any()  # what was filtered out stays out
        mean += row.double().exp() / turns
    assert torch.allclose(mean, logits.double().exp(), atol=0.06)
    assert mean.sum() == pytest.approx(float(logits.double().exp().sum()), rel=1e-5)


def test_seed_when_repeated_gives_the_same_text_whatever_runs_beside_it_and_another_seed_another(
    marked: Engine,
) -> None:
    config = SAMPLED.model_copy(update={"seed": 7, "max_tokens": 40})
    prompt = [30, 31, 32]
    alone = marked.submit(prompt, config).result()
    beside = marked.generate([[9, 8, 7], prompt, [40]], [SAMPLED, config, GenerationConfig(temperature=0)])
    assert beside[1].ids == alone.ids
    texts = {tuple(r.ids) for r in marked.generate([prompt] * 8, config)}  # seeds 7 to 14
    assert len(texts) == 8


def test_greedy_when_marked_is_what_it_was(marked: Engine, make_model: Make, tokenizer: Tokenizer) -> None:
    greedy = GenerationConfig(temperature=0, max_tokens=30, ignore_eos=True)
    with Engine(make_model(), tokenizer) as plain:
        expected = plain.submit([30, 31], greedy).result().ids
    mixed = marked.generate([[30, 31], [5, 6]], [greedy, SAMPLED])
    assert mixed[0].ids == expected


def test_guesses_when_checked_change_no_marked_answer(make_model: Make, tokenizer: Tokenizer) -> None:
    config = GenerationConfig(temperature=0.3, max_tokens=60, ignore_eos=True, seed=3)
    prompt = [20, 21, 22, 23] * 6
    answers = []
    for speculative in (True, False):
        with Engine(make_model(), tokenizer, speculative=speculative) as engine:
            engine.watermark(MARK)
            request: Request = engine.submit(prompt, config)
            answers.append(request.result().ids)
    assert answers[0] == answers[1]


def test_window_when_it_comes_again_in_an_answer_is_not_marked_again(make_model: Make, tokenizer: Tokenizer) -> None:
    from gptwright.infer.answer import Answer

    answer = Answer(Request([1, 2, 3, 4, 5], SAMPLED), tokenizer)
    assert answer.mark(MARK) is None  # the prompt does not count: a detector does not see it
    answer.request.ids += [5, 6, 7, 8]
    first = answer.mark(MARK)
    assert first == MARK.seed((5, 6, 7, 8))
    answer.request.ids += [5, 6, 7, 8]
    assert answer.mark(MARK) is None
    assert WINDOW == 4


def test_key_when_made_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "state" / "watermark.key"
    assert Watermark.open(file, create=False) is None
    first = Watermark.open(file, create=True)
    again = Watermark.open(file, create=False)
    assert first is not None
    assert again is not None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    window = [random.randrange(1000) for _ in range(WINDOW)]
    assert first.seed(window) == again.seed(window) != MARK.seed(window)
    key = file.read_text().strip()
    assert key not in repr(first)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Watermark.open(tmp_path / "file" / "watermark.key", create=True)
    file.write_text("nonsense")
    with pytest.raises(UserError, match="no watermark key"):
        Watermark.open(file, create=True)

"""lm-eval against the server: the same numbers over HTTP as in process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gptwright.serve.protocols import ModelInfo

MODEL = "tiny-pretrain-0123456789"
PAIRS = [
    ("the cat sat", " on the mat"),
    ("the cat", " sat on the hat and the mat"),
    ("the hat", " of"),
    ("Grüße 🙂", " the cat"),
    ("", "the cat sat"),
]


class OneModel:
    """The models of a project with one model."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def list(self) -> Sequence[ModelInfo]:
        return [ModelInfo(MODEL, 1_790_000_000)]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        return MODEL, self._engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a Hugging Face directory."""
    torch = pytest.importorskip("torch")
    from gptwright.model.config import ModelConfig
    from gptwright.model.io import save_model
    from gptwright.model.transformer import Transformer
    from gptwright.tokens.tokenizer import train_tokenizer

    place = Path(tmp_path_factory.mktemp("model"))
    folder = place / "m"
    tokenizer = train_tokenizer(["the cat sat on the mat and the hat of the cat " * 20], 270, place / "t")
    config = ModelConfig(
        family="modern",
        vocab_size=tokenizer.vocab_size,  # padding rows of random weights would have probability in transformers, and none here
        n_layers=2,
        d_model=64,
        n_heads=4,
        n_kv_heads=2,
        d_head=16,
        d_ff=128,
        seq_len=256,
    )
    model = Transformer(config)
    model.init_weights(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    save_model(model, folder, place / "t")
    return folder


@pytest.mark.slow
def test_lm_eval_when_over_http_then_its_numbers_are_those_in_process(
    start: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from gptwright.infer.engine import Engine

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with Engine.load(folder, dtype=torch.float32) as engine:
        url, _ = start(models=OneModel(engine))
        remote = LocalCompletionsAPI(
            base_url=url + "/v1/completions",
            model=MODEL,
            tokenizer_backend="huggingface",
            tokenizer=str(folder),
            batch_size=4,
            max_length=256,
            seed=1,
        )
        rows = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(PAIRS)]
        over_http = remote.loglikelihood(rows)
        rolling = [Instance("loglikelihood_rolling", {}, ("the cat sat on the mat " * 8,), 0)]
        rolled = remote.loglikelihood_rolling(rolling)
        until = [Instance("generate_until", {}, ("the cat", {"until": ["\n"], "max_gen_toks": 8}), 0)]
        said = remote.generate_until(until)

        # The same requests, answered in this process by the same engine.
        def ours(text: str, more: str) -> float:
            tokenizer = engine.tokenizer
            first = tokenizer.encode(text) or [remote.prefix_token_id]
            ids = [*first, *(tokenizer.encode(text + more)[len(tokenizer.encode(text)) :])]
            return sum(entry.logprob for entry in engine.score(ids)[len(first) :])  # type: ignore[misc]

        for (text, more), (logprob, _) in zip(PAIRS, over_http, strict=True):
            assert logprob == pytest.approx(ours(text, more), abs=1e-6)

    local = HFLM(
        pretrained=str(folder), dtype="float32", device="cpu", batch_size=1, max_length=255
    )  # what is left of 256 over HTTP
    assert local.prefix_token_id == remote.prefix_token_id
    in_process = local.loglikelihood(rows)
    for (mine, greedy), (theirs, greedy_there) in zip(over_http, in_process, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)  # transformers' own arithmetic, summed over up to 12 tokens
        assert greedy == greedy_there
    assert rolled == pytest.approx(local.loglikelihood_rolling(rolling), rel=1e-5)
    assert said == local.generate_until(until)
    print("largest distance to transformers", max(abs(a[0] - b[0]) for a, b in zip(over_http, in_process, strict=True)))


@pytest.mark.slow
def test_lm_eval_when_it_uses_the_servers_tokenizer_then_it_finds_it(
    start: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from gptwright.infer.engine import Engine

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with Engine.load(folder, dtype=torch.float32) as engine:
        url, _ = start(models=OneModel(engine))
        remote = LocalCompletionsAPI(base_url=url + "/v1/completions", model=MODEL, max_length=256)
        assert remote.tokenizer_backend == "remote"
        assert remote.tok_encode("the cat") == engine.tokenizer.encode("the cat")
        found = remote.loglikelihood([Instance("loglikelihood", {}, PAIRS[0], 0)])
        first = len(engine.tokenizer.encode(PAIRS[0][0]))
        expected = engine.score(engine.tokenizer.encode("".join(PAIRS[0])))[first:]
        assert found[0][0] == pytest.approx(sum(entry.logprob for entry in expected), abs=1e-6)

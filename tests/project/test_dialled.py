"""A project's run takes what the dial says where its file is silent, and a size of GPT-3 brings the paper's context."""

from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.files import read_json
from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.project import training
from gptwright.project.planning import fixed_shape
from gptwright.project.project import Project
from gptwright.project.settings import FinetuneSettings, ModelSettings, PretrainSettings
from gptwright.project.training import tokens_ahead, train_config
from gptwright.train.config import TrainConfig
from gptwright.train.dial import decay_for, dial
from gptwright.train.loop import StepInfo, train


def test_pretrain_when_rates_are_left_out_then_the_run_has_the_dials(finished: Path) -> None:
    kept = read_json(next((finished / "work" / "runs").glob("*/shape.json")))
    shape, train = ModelConfig.model_validate(kept["model"]), kept["train"]
    assert train["batch_tokens"] == 256  # set in the file
    unique = read_json(next((finished / "work" / "tokens").glob("*/dataset.json")))["tokens"]
    expected = dial(shape, steps=train["max_steps"], batch_tokens=256, unique=unique)
    assert train["weight_decay"] == expected.weight_decay
    assert (train["lr_matrix"], train["lr_embedding"], train["lr_other"]) == (
        expected.lr_matrix,
        expected.lr_embedding,
        expected.lr_other,
    )


def test_train_config_when_read_from_a_section_then_knows_what_was_set_by_hand() -> None:
    left = train_config(PretrainSettings.model_validate({"max_steps": 3}))
    assert left.model_fields_set == {"max_steps"}
    given = train_config(PretrainSettings.model_validate({"max_steps": 3, "lr_matrix": 0.01, "batch_tokens": None}))
    assert given.model_fields_set == {"max_steps", "lr_matrix"}
    tuned = train_config(FinetuneSettings.model_validate({"max_steps": 3}))
    assert {
        "lr_matrix",
        "lr_embedding",
        "lr_other",
        "weight_decay",
    } <= tuned.model_fields_set  # fine-tuning has its own


@pytest.mark.parametrize(("given", "seq_len"), [({}, 2048), ({"seq_len": 256}, 256), ({"seq_len": 512}, 512)])
def test_shape_when_a_size_of_gpt3_then_has_the_papers_context_unless_one_is_set(
    given: dict[str, int], seq_len: int
) -> None:
    shape = fixed_shape(ModelSettings.model_validate({"preset": "gpt3-125m", **given}), 4096)
    assert shape is not None
    assert (shape.n_layers, shape.d_model, shape.seq_len) == (12, 768, seq_len)


def test_tokens_ahead_when_a_time_is_given_then_are_estimated_and_steps_or_a_batch_need_none() -> None:
    shape = ModelConfig(vocab_size=256, n_layers=1, d_model=64, n_heads=1, n_kv_heads=1, d_ff=64, seq_len=64)
    minute = tokens_ahead(shape, TrainConfig(max_time=60, dtype="float32"))
    assert minute is not None
    assert minute > 1e4
    assert tokens_ahead(shape, TrainConfig(max_steps=5)) is None
    assert tokens_ahead(shape, TrainConfig(max_time=60, batch_tokens=512, weight_decay=0.1)) is None
    assert tokens_ahead(shape, TrainConfig(max_time=60, batch_tokens=512, dtype="float32")) is not None  # for the decay


def test_pretrain_when_it_goes_on_then_what_decides_nothing_is_as_it_is_set_now(
    tmp_path: Path, tiny: Any, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.make(tmp_path / "tiny", notes=30, chats=0)
    ask, seen = ("--project", str(root)), []

    def stops(shape: ModelConfig, plan: Any, config: TrainConfig, **more: Any) -> Any:
        seen.append(config)
        more["callbacks"] = [*more["callbacks"], *([stop] if len(seen) == 1 else [])]
        return train(shape, plan, config, **more)

    def stop(info: StepInfo) -> None:
        if info.step == 3:
            raise Interrupted("stopped")

    monkeypatch.setattr(training, "train", stops)
    assert gptwright("pretrain", *ask).code == 130
    changed = ("pretrain.micro_tokens=64", "pretrain.activation_checkpointing=true", "pretrain.device='cpu'")
    words = [word for one in changed for word in ("--set", one)]
    assert "continuing" in gptwright("pretrain", *ask, *words).ok().err
    first, second = seen
    assert (second.micro_tokens, second.activation_checkpointing, second.device) == (64, True, "cpu")
    assert {n for n in TrainConfig.model_fields if getattr(first, n) != getattr(second, n)} == {
        "micro_tokens",
        "activation_checkpointing",
        "device",
    }


@pytest.mark.parametrize("by_hand", [None, 0.0, 0.07])
def test_pretrain_when_the_text_is_read_many_times_then_has_the_rules_decay_or_the_users_and_keeps_it(
    by_hand: float | None, tmp_path: Path, tiny: Any, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.make(tmp_path / "tiny", notes=12, chats=0)
    words = ["--project", str(root), "--set", "pretrain.max_steps=80"]
    if by_hand is not None:
        words += ["--set", f"pretrain.weight_decay={by_hand}"]
    seen: list[TrainConfig] = []

    def stops(shape: ModelConfig, plan: Any, config: TrainConfig, **more: Any) -> Any:
        seen.append(config)
        unique = plan.dataset.n_tokens
        ruled = decay_for(80 * config.batch_tokens / unique, unique / params(shape))
        assert ruled > 0
        assert config.weight_decay == (ruled if by_hand is None else by_hand)
        if len(seen) == 1:
            raise Interrupted("stopped")
        return train(shape, plan, config, **more)

    monkeypatch.setattr(training, "train", stops)
    assert gptwright("pretrain", *words).code == 130
    done = gptwright("pretrain", *words).ok()
    assert "continuing" in done.err
    assert seen[0] == seen[1]
    folder = next((root / "work" / "runs").glob("*/shape.json")).parent
    assert read_json(folder / "config.json")["train"]["weight_decay"] == seen[0].weight_decay


@pytest.mark.parametrize(
    ("told", "asked", "left"),
    [
        ("depth = 3", ["model.params=5e6"], {"params": 5_000_000}),
        ("params = 5e6", ["model.depth=3"], {"depth": 3}),
        ('preset = "gpt2"\nparams = 5e6', ["model.depth=3"], {"depth": 3, "preset": "gpt2"}),
        ("depth = 3", ['model.preset="gpt3-125m"'], {"preset": "gpt3-125m"}),
        ("depth = 3", ['model.preset="gpt2"'], {"depth": 3, "preset": "gpt2"}),
    ],
)
def test_size_when_asked_for_on_the_command_line_then_the_files_other_size_does_not_stand_in_its_way(
    told: str, asked: list[str], left: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "gptwright.toml").write_text(f"[model]\n{told}\n")
    project = Project.open(tmp_path, overrides=asked)
    assert project.settings.model.model_dump(exclude_unset=True) == left
    assert project.origins[asked[0].partition("=")[0]] == "--set"


def test_size_when_two_are_asked_for_at_once_then_they_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gptwright.toml").write_text("[model]\ndepth = 2\n")
    with pytest.raises(UserError, match="depth or params, not both"):
        Project.open(tmp_path, overrides=["model.depth=3", "model.params=5e6"])


def test_shape_when_an_untied_head_is_asked_for_then_has_one_and_params_count_it() -> None:
    def asked(**given: Any) -> ModelConfig:
        found = fixed_shape(ModelSettings.model_validate({"seq_len": 256, **given}), 4096)
        assert found is not None
        return found

    tied, untied = asked(depth=3), asked(depth=3, tie_embeddings=False)
    assert untied == tied.model_copy(update={"tie_embeddings": False})
    assert params(untied) - params(tied) == 4096 * 192
    assert params(asked(params=5e6, tie_embeddings=False)) == pytest.approx(5e6, rel=0.15)
    assert not asked(depth=2, preset="gpt2", tie_embeddings=False).tie_embeddings
    # A model by name is as it is, unless it is asked to be otherwise.
    assert asked(preset="tinyllama-1.1b").tie_embeddings is False
    assert asked(preset="tinyllama-1.1b", tie_embeddings=True).tie_embeddings is True
    assert asked(preset="qwen3-0.6b").tie_embeddings is True

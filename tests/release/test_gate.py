"""The gate's conditions, one by one."""

import numpy as np
import pytest

from gptwright.core.config import build_config
from gptwright.core.errors import UserError
from gptwright.evaluate.scores import BitsPerByte
from gptwright.model.io import save_model
from gptwright.model.presets import modern
from gptwright.model.transformer import Transformer
from gptwright.release.config import GatePolicy
from gptwright.release.gate import Check, gate


@pytest.fixture
def directory(tmp_path):
    folder = save_model(Transformer(modern(depth=1, vocab_size=128, seq_len=16)), tmp_path / "m")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("# m\n")
    return folder


def result(bpb, n=60, seed=0, first=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(200, 900, n)
    noise = rng.normal(0, 0.05, n)
    return BitsPerByte(
        tuple(f"d{i}" for i in range(first, first + n)), (bpb + noise) * sizes, sizes.astype(np.int64), 10, 0
    )


def test_gate_without_production_then_passes_and_says_against_nothing(directory):
    verdict = gate(directory, GatePolicy(), result(1.5))
    assert verdict.passed
    assert verdict.against is None
    assert verdict.to_json()["reasons"] == []


def test_gate_when_bits_per_byte_are_over_the_limit_then_fails_with_both_numbers(directory):
    verdict = gate(directory, GatePolicy(max_bits_per_byte=1.2), result(1.5))
    assert not verdict.passed
    assert "at most 1.2" in verdict.reasons[0]


def test_gate_without_a_result_or_a_card_or_a_tokenizer_then_names_each(directory):
    (directory / "README.md").unlink()
    (directory / "tokenizer.json").unlink()
    reasons = gate(directory, GatePolicy(), None).reasons
    assert [r.split(":")[0] for r in reasons] == ["files", "evaluation", "model card"]
    assert "tokenizer.json missing" in reasons[0]
    assert len(gate(directory, GatePolicy(require_cards=False), None).reasons) == 2


def test_gate_with_a_pickle_inside_then_refuses_it(directory):
    (directory / "extra.bin").write_bytes(b"x")
    assert "extra.bin may run code" in gate(directory, GatePolicy(), result(1.5)).reasons[0]


def test_gate_when_clearly_worse_than_production_then_fails_and_when_slightly_then_the_margin_decides(directory):
    old = result(1.50)
    assert not gate(directory, GatePolicy(margin=0.02), result(1.60), ("old", old)).passed
    slightly = result(1.51)
    assert gate(directory, GatePolicy(margin=0.02), slightly, ("old", old)).passed
    assert not gate(directory, GatePolicy(margin=0.005), slightly, ("old", old)).passed
    better = gate(directory, GatePolicy(margin=0), result(1.40), ("old", old))
    assert better.passed
    assert better.against == "old"
    assert better.comparison is not None
    assert better.comparison.delta == pytest.approx(-0.1)


def test_gate_when_too_few_documents_to_tell_then_fails_and_says_what_could_be_seen(directory):
    verdict = gate(
        directory,
        GatePolicy(margin=0.01),
        result(1.5, n=4, seed=1),
        ("old", result(1.5, n=4, seed=1).only(["d0", "d1"])),
    )
    assert verdict.passed
    rng = np.random.default_rng(3)
    noisy = result(1.5, n=5)
    shaken = BitsPerByte(noisy.uids, noisy.bits + rng.normal(0, 60, 5), noisy.bytes, 10, 0)
    verdict = gate(directory, GatePolicy(margin=0.01), shaken, ("old", noisy))
    assert not verdict.passed
    assert "so few documents" in verdict.reasons[0]


def test_gate_when_the_heldout_set_grew_then_compares_on_shared_documents(directory):
    verdict = gate(
        directory, GatePolicy(), result(1.5, n=80), ("old", result(1.5, n=80).only([f"d{i}" for i in range(70)]))
    )
    assert verdict.comparison is not None
    assert verdict.comparison.n == 70
    apart = gate(directory, GatePolicy(), result(1.5, first=100), ("old", result(1.5)))
    assert "only 0 held-out documents" in apart.reasons[0]
    assert "old has no held-out result" in gate(directory, GatePolicy(), result(1.5), ("old", None)).reasons[0]


def test_gate_with_a_failed_extra_check_then_fails(directory):
    assert gate(directory, GatePolicy(), result(1.5), extra=[Check("questions", False, "3 of 10")]).reasons == [
        "questions: 3 of 10"
    ]


def test_gate_policy_with_an_unknown_key_then_user_error():
    with pytest.raises(UserError, match="margin"):
        build_config(GatePolicy, {"margn": 1})

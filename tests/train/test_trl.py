"""Losses of preference tuning beside TRL's own trainer: on the same model, reference and pairs, ours is the number that it computes.

Where trl is not installed, ours is held against the numbers that TRL 1.16.0 gave here (golden/trl.json).
"""

import json
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from tiny_training import tiny_config

from gptwright.model.io import save_model
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.stepper import Stepper

GOLDEN = Path(__file__).parent / "golden" / "trl.json"
BETA = 0.3
KINDS = {"dpo": "sigmoid", "ipo": "ipo"}  # TRL's names of the losses


def weights(seed: int) -> Transformer:
    model = Transformer(tiny_config())
    model.init_weights(seed)
    return model


def our_loss(kind: str, folder: Path) -> float:
    """The first step's loss of a policy that has moved from its reference."""
    case = cases.build(kind, dtype="float32", beta=BETA, compile="off")
    stepper = Stepper(weights(0), case.config, machine.choose(case.config), objective=case.objective)
    case.objective.begin(stepper, case.plan, folder)
    stepper.load({name: p.detach() for name, p in weights(1).named_parameters()}, None)
    return stepper.gradients(case.objective.gather(stepper, case.plan.batch(0), 0)).loss


def examples(kind: str) -> list[dict[str, list[int]]]:
    """The pairs of the first batch as TRL's collator takes them."""
    batch = cases.build(kind).plan.batch(0)
    found: list[dict[str, list[int]]] = []
    for row, (tokens, targets) in enumerate(zip(np.asarray(batch.tokens), np.asarray(batch.targets), strict=True)):
        learnt = np.flatnonzero(targets >= 0)
        answer = targets[learnt].tolist()
        if row % 2 == 0:
            found.append({"prompt_ids": tokens[: learnt[0] + 1].tolist(), "chosen_ids": answer})
        else:
            found[-1]["rejected_ids"] = answer
    return found


def trl_loss(kind: str, folder: Path) -> float:
    """What TRL's trainer computes in its first step."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    class Trainer(trl.DPOTrainer):  # type: ignore[misc,name-defined]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # ids already

    policy, reference = (
        AutoModelForCausalLM.from_pretrained(save_model(weights(seed), folder / f"seed-{seed}"), dtype=torch.float32)
        for seed in (1, 0)
    )
    words = Tokenizer(WordLevel({str(number): number for number in range(64)}, unk_token="0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0", pad_token="0")
    arguments = trl.DPOConfig(
        output_dir=str(folder), beta=BETA, loss_type=KINDS[kind], use_cpu=True, bf16=False, report_to=[], disable_dropout=True,
    )  # fmt: skip
    rows = examples(kind)
    trainer = Trainer(
        policy, reference, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )
    policy.train()
    return float(trainer.compute_loss(policy, trainer.data_collator(rows)).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_loss_when_policy_has_moved_then_is_the_number_that_trl_gave(kind: str, tmp_path: Path) -> None:
    assert our_loss(kind, tmp_path) == pytest.approx(json.loads(GOLDEN.read_text())[kind], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_loss_when_trl_is_installed_then_its_trainer_computes_the_same(kind: str, tmp_path: Path) -> None:
    theirs = trl_loss(kind, tmp_path / "trl")
    assert our_loss(kind, tmp_path) == pytest.approx(theirs, rel=1e-5)
    assert theirs == pytest.approx(json.loads(GOLDEN.read_text())[kind], rel=1e-5)

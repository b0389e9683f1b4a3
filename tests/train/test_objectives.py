"""Every objective: the published formulas, gradients against autograd over whole logits, and that they learn what they are to."""

import math
from pathlib import Path

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_training import tiny_config

from gptwright.core.errors import UserError
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.distill import Distillation, check_tokenizers, distillation_loss
from gptwright.train.grpo import Grpo, advantages
from gptwright.train.logprobs import target_logprobs
from gptwright.train.loop import train
from gptwright.train.metrics import read_metrics
from gptwright.train.preferences import REFERENCE, Kto, Preference, dpo_loss, ipo_loss, kto_loss
from gptwright.train.stepper import Stepper


def start(seed: int = 0) -> Transformer:
    model = Transformer(tiny_config()).double()
    model.init_weights(seed)
    return model


def stepper_of(case: cases.Case, model: Transformer) -> Stepper:
    return Stepper(model, case.config, machine.choose(case.config), objective=case.objective)


def plain_logps(model: Transformer, batch) -> torch.Tensor:
    """Sums of log-probabilities of each row's targets, with all logits in memory and autograd's own softmax."""
    tokens, targets = torch.as_tensor(batch.tokens), torch.as_tensor(batch.targets)
    logps = torch.log_softmax(model.logits(model(tokens)), -1)
    picked = logps.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (picked * (targets >= 0)).sum(1)


def plain_loss(kind: str, policy: Transformer, ref: Transformer, plan, beta: float) -> torch.Tensor:
    """The formulas of the papers and of TRL 1.16 (trainer/dpo_trainer.py, trainer/kto_trainer.py), written anew over whole batches."""
    batch = plan.batch(0)
    with torch.no_grad():
        ref_logps = plain_logps(ref, batch)
    logps = plain_logps(policy, batch)
    if kind == "kto":
        with torch.no_grad():
            kl = (plain_logps(policy, batch.mismatched) - plain_logps(ref, batch.mismatched)).mean().clamp(min=0)
        ratio, good = logps - ref_logps, torch.as_tensor(batch.extra["good"])
        losses = torch.cat(
            [1 - torch.sigmoid(beta * (ratio[good] - kl)), 1.2 * (1 - torch.sigmoid(beta * (kl - ratio[~good])))]
        )
        return losses.mean()
    score = logps - ref_logps
    if kind == "ipo":
        score = score / (torch.as_tensor(batch.targets) >= 0).sum(1)
        return (((score[0::2] - score[1::2]) - 1 / (2 * beta)) ** 2).mean()
    return -F.logsigmoid(beta * (score[0::2] - score[1::2])).mean()


@pytest.mark.parametrize("kind", ["dpo", "ipo", "kto"])
@pytest.mark.parametrize("micro", [16, 32, 64])
def test_preferences_when_policy_has_moved_then_loss_and_gradients_equal_the_plain_formulas(
    kind: str, micro: int, tmp_path: Path
) -> None:
    case = cases.build(kind, dtype="float64", micro_tokens=micro, beta=0.3, threads=2)
    ref, policy, ours = start(), start(1), start()
    stepper = stepper_of(case, ours)
    case.objective.begin(stepper, case.plan, tmp_path)
    stepper.load({name: p.detach() for name, p in policy.named_parameters()}, None)
    result = stepper.gradients(case.objective.gather(stepper, case.plan.batch(0), 0))
    expected = plain_loss(kind, policy, ref, case.plan, 0.3)
    expected.backward()
    assert result.loss == pytest.approx(expected.item(), rel=1e-12)
    for name, p in policy.named_parameters():
        torch.testing.assert_close(stepper.optimizer.grads[name], p.grad, rtol=1e-9, atol=1e-12)


def test_losses_when_at_known_points_then_are_the_numbers_of_the_formulas() -> None:
    x = torch.tensor([0.0, 2.0, -3.0], dtype=torch.float64)
    assert dpo_loss(x, 0.5).tolist() == pytest.approx([math.log(1 + math.exp(-0.5 * v)) for v in x.tolist()], rel=1e-12)
    assert ipo_loss(x, 0.1).tolist() == pytest.approx([25.0, 9.0, 64.0])
    good = torch.tensor([True, False, True])
    sigma = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    assert kto_loss(x, good, torch.tensor([0.5] * 3), 0.2, 1.0, 2.0).tolist() == pytest.approx(
        [1 - sigma(0.2 * -0.5), 2 * (1 - sigma(0.2 * -1.5)), 1 - sigma(0.2 * -3.5)]
    )


def test_target_logprobs_when_chunked_then_equal_the_plain_ones_with_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(9, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.tensor([1, -100, 3, 8, 0, -100, 2, 2, 5, 7, 4])
    assert torch.autograd.gradcheck(lambda h, w: target_logprobs(h, w, targets, chunk=4), (hidden, weight))
    plain = torch.log_softmax(hidden @ weight.t(), -1).gather(-1, targets.clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(target_logprobs(hidden, weight, targets, chunk=4), plain * (targets >= 0))


@pytest.mark.parametrize("base", ["full", "lora"])
def test_reference_when_a_run_resumes_then_is_read_and_not_made_from_moved_weights(base: str, tmp_path: Path) -> None:
    case = cases.build("dpo-lora" if base == "lora" else "dpo", max_steps=6, checkpoint_every=2)
    train(case.model, case.plan, case.config, run_dir=tmp_path, objective=case.objective)
    kept = (tmp_path / REFERENCE).read_bytes()
    again = cases.build("dpo", dtype="float32")
    again.model.init_weights(5)  # moved
    stepper = stepper_of(again, again.model)
    again.objective.begin(stepper, again.plan, tmp_path)
    assert (tmp_path / REFERENCE).read_bytes() == kept
    other = cases.build("dpo")
    other.plan.key = "other answers"
    with pytest.raises(UserError, match="the reference of other answers"):
        other.objective.begin(stepper_of(other, other.model), other.plan, tmp_path)


@pytest.mark.parametrize("kind", ["dpo", "ipo", "kto"])
def test_preferences_when_trained_then_chosen_answers_gain_on_rejected_ones(kind: str, tmp_path: Path) -> None:
    case = cases.build(kind, max_steps=40, dtype="float32", lr_matrix=0.003, lr_embedding=0.003, lr_other=0.002)
    train(case.model, case.plan, case.config, run_dir=tmp_path, objective=case.objective)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["margin"] > rows[0]["margin"] + 0.5
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-3)
    if kind != "kto":
        assert rows[-1]["preferred"] == 1.0


def test_distillation_when_against_plain_autograd_then_loss_and_gradients_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    hidden, weight = draw(10, 6).requires_grad_(), draw(12, 6).requires_grad_()
    theirs, their_weight = draw(10, 4), draw(9, 4)  # another width, a smaller padded vocabulary
    targets = torch.tensor([1, 2, -100, 8, 0, 4, -100, 3, 3, 7])
    loss, divergence = distillation_loss(hidden, weight, theirs, their_weight, targets, 0.125, 0.7, 2.0, chunk=3)
    loss.backward()
    h, w = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    logits, keep = h @ w.t(), targets >= 0
    ce = F.cross_entropy(logits[keep], targets[keep], reduction="sum")
    kl = F.kl_div(
        torch.log_softmax(logits[keep][:, :9] / 2, -1),
        torch.log_softmax((theirs @ their_weight.t())[keep] / 2, -1),
        reduction="sum",
        log_target=True,
    )
    expected = 0.125 * (0.3 * ce + 0.7 * 4 * kl)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    assert float(divergence) == pytest.approx(float(kl), rel=1e-12)
    torch.testing.assert_close(hidden.grad, h.grad)
    torch.testing.assert_close(weight.grad, w.grad)


def test_distillation_when_trained_then_the_student_comes_near_the_teacher(tmp_path: Path) -> None:
    case = cases.build("distill", max_steps=60, dtype="float32")
    train(case.model, case.plan, case.config, run_dir=tmp_path, objective=case.objective)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["divergence"] < 0.5 * rows[0]["divergence"]


def test_distillation_when_tokenizers_differ_then_says_so_once_and_clearly() -> None:
    check_tokenizers("b2:a", "b2:a", "teacher")
    with pytest.raises(UserError, match="another tokenizer"):
        check_tokenizers("b2:a", "b2:b", "teacher")


def test_advantages_when_grouped_then_are_trl_s_and_best_keeps_the_rewarded() -> None:
    rewards = np.array([1.0, 0, 0, 1, 2, 2, 2, 2, 0, 0, 0, 0])
    found = advantages(rewards, 4, "group")
    grouped = torch.tensor(rewards).view(-1, 4)
    expected = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    assert found.tolist() == pytest.approx(expected.flatten().tolist())
    assert advantages(rewards, 4, "best").tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_grpo_when_against_the_clipped_ratio_with_autograd_then_gradients_agree(beta: float, tmp_path: Path) -> None:
    case = cases.build("grpo-kl" if beta else "grpo", dtype="float64")
    ref, policy, ours = start(), start(1), start()
    stepper = stepper_of(case, ours)
    case.objective.begin(stepper, case.plan, tmp_path)
    stepper.load({name: p.detach() for name, p in policy.named_parameters()}, None)
    work = case.objective.gather(stepper, case.plan.batch(0), 0)
    stepper.gradients(work)
    tokens, targets = torch.as_tensor(work.tokens), torch.as_tensor(work.targets)
    real = targets >= 0

    def logps(model: Transformer) -> torch.Tensor:
        return torch.log_softmax(model.logits(model(tokens)), -1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]

    now = logps(policy)
    ratio = torch.exp(now - now.detach())
    advantage = torch.as_tensor(work.extra["advantage"])[:, None]
    loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    if beta:
        before = logps(ref).detach()
        loss = loss + beta * (torch.exp(before - now) - (before - now) - 1)
    ((loss * real).sum() / real.sum()).backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(stepper.optimizer.grads[name], p.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["grpo", pytest.param("best", marks=pytest.mark.slow)])
def test_grpo_when_even_tokens_are_rewarded_then_the_reward_rises(kind: str, tmp_path: Path) -> None:
    steps = {"grpo": 30, "best": 90}[kind]
    case = cases.build(kind, max_steps=steps, dtype="float32", lr_matrix=0.02, lr_embedding=0.02)
    train(case.model, case.plan, case.config, run_dir=tmp_path, objective=case.objective)
    rewards = [row["reward"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) + 0.1


def test_grpo_when_no_answer_is_better_than_another_then_the_step_changes_nothing(tmp_path: Path) -> None:
    case = cases.build("best", max_steps=3)
    case.objective.reward = lambda tasks, answers: [0.0] * len(answers)
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    result = train(case.model, case.plan, case.config, run_dir=tmp_path, objective=case.objective)
    assert result.steps == 3
    for name, p in case.model.named_parameters():
        assert torch.equal(p, before[name]), name


@pytest.mark.parametrize("objective", [Preference("dpo", 0.1), Kto(0.1)])
def test_preference_when_start_weights_are_no_numbers_then_names_the_answer(objective, tmp_path: Path) -> None:
    case = cases.build("kto" if isinstance(objective, Kto) else "dpo", dtype="float32")
    with torch.no_grad():
        case.model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="answer-0"):
        objective.begin(stepper_of(case, case.model), case.plan, tmp_path)


def test_config_when_a_setting_makes_no_sense_then_is_refused() -> None:
    for values in ({"objective": "dpo", "beta": 0.0}, {"goldfish": 1}):
        with pytest.raises(ValueError, match=r"beta above 0|goldfish = 1"):
            TrainConfig(max_steps=1, **values)
    assert isinstance(Grpo(cases.toy_sample, cases.toy_reward, TrainConfig(max_steps=1)).key, str)
    assert Distillation(cases.teacher(), 0.5, 1.0, "abc").key == "teacher abc"

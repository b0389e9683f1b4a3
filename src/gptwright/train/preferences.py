"""Losses of preferences: DPO, IPO and KTO, against log-probabilities of the weights that the run started from.

Source: DPO (arXiv 2305.18290), eq. 7; IPO (arXiv 2310.12036), eq. 17, with log-probabilities averaged over an answer's tokens as its
authors did (told in TRL's documentation); KTO (arXiv 2402.01306), eq. 8, its KL term estimated on mismatched answers of the batch.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.core.progress import progress
from gptwright.model.kernels import Kernels
from gptwright.model.transformer import Transformer
from gptwright.train.data import Array, Batch, Plan, Rows, Work
from gptwright.train.logprobs import row_logprobs
from gptwright.train.objectives import Objective

if TYPE_CHECKING:
    from gptwright.train.stepper import Stepper

REFERENCE = "reference.safetensors"
_AT_ONCE = 64  # answers in a batch of the reference; the stepper splits it further


class AnswerPlan(Plan, Protocol):
    """A plan whose batches have ``extra["answer"]``: the number of each row's answer among ``n_answers``."""

    n_answers: int

    def answers(self, first: int, last: int) -> Batch:
        """Answers of these numbers, a row each."""
        ...


class JudgedWork(Work):
    """A batch of KTO: ``mismatched`` has the same prompts with other answers, numbered like all answers."""

    mismatched: Work


def dpo_loss(margin_n: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta * margin); margin: how much more the policy prefers the chosen answer than the reference does, nats (N,)."""
    return -F.logsigmoid(beta * margin_n)


def ipo_loss(margin_n: Tensor, beta: float) -> Tensor:
    """(margin - 1 / (2 beta))^2; margin as in DPO but of log-probabilities per token."""
    return (margin_n - 1 / (2 * beta)).square()


def kto_loss(ratio_n: Tensor, good_n: Tensor, kl_n: Tensor, beta: float, good: float, bad: float) -> Tensor:
    """Each answer by itself: good ones are to gain on the reference more than the KL term, bad ones less.

    Args:
        ratio_n: log p of the policy minus log p of the reference, nats (N,).
        good_n: bool (N,).
        kl_n: the batch's KL term, at least 0, nats (N,).
        beta: how soon gains saturate.
        good: weight of good answers.
        bad: weight of bad ones.
    """
    gain = torch.where(good_n, ratio_n - kl_n, kl_n - ratio_n)
    weight = torch.where(good_n, gain.new_tensor(good), gain.new_tensor(bad))
    return weight * (1 - torch.sigmoid(beta * gain))


class Preference(Objective):
    """DPO and IPO: rows come in pairs, the chosen answer first.

    Args:
        kind: "dpo" or "ipo".
        beta: strength of the tie to the reference; for IPO the paper's tau.
    """

    unit = 2

    def __init__(self, kind: str, beta: float) -> None:
        self.kind, self.beta = kind, beta
        self.reference: Array = np.zeros(0)

    def begin(self, stepper: "Stepper", plan: Plan, folder: Path) -> None:
        """Log-probabilities of every answer under the start weights: made once, then read."""
        self.reference = reference(stepper, cast(AnswerPlan, plan), folder)

    def gather(self, stepper: "Stepper", batch: Batch, step: int) -> Batch:
        """The batch with its reference."""
        made = cast(Work, batch)
        return replace(made, extra={"reference": self.reference[made.extra["answer"]]})

    def count(self, batch: Batch) -> int:
        """Pairs."""
        return len(batch.tokens) // 2

    def loss(self, model: Transformer, rows: Rows, scale: float, kernels: Kernels | None) -> Tensor:
        """See ``Objective``."""
        ratio = row_logprobs(model, rows) - rows.extra["reference"]
        gain = ratio[::2] - ratio[1::2]
        if self.kind == "ipo":
            ratio = ratio / (rows.targets >= 0).sum(1).clamp(min=1)
            losses = ipo_loss(ratio[::2] - ratio[1::2], self.beta)
        else:
            losses = dpo_loss(gain, self.beta)
        rows.stats["preferred"] = float((gain.detach() > 0).sum())
        rows.stats["margin"] = self.beta * float(gain.detach().sum())
        return losses.sum() * scale


class Kto(Objective):
    """KTO: an answer a row with ``extra["good"]``, and ``mismatched`` in the batch: the same prompts with other answers.

    Args:
        beta: how soon gains saturate.
        good: weight of good answers.
        bad: weight of bad ones.
    """

    def __init__(self, beta: float, good: float = 1.0, bad: float = 1.0) -> None:
        self.beta, self.good, self.bad = beta, good, bad
        self.reference: Array = np.zeros(0)

    def begin(self, stepper: "Stepper", plan: Plan, folder: Path) -> None:
        """See ``Preference``."""
        self.reference = reference(stepper, cast(AnswerPlan, plan), folder)

    def gather(self, stepper: "Stepper", batch: Batch, step: int) -> Batch:
        """The batch with its reference and its KL term: how much likelier mismatched answers became, on average."""
        made = cast(JudgedWork, batch)
        apart = made.mismatched
        gained = stepper.logprobs(apart) - self.reference[apart.extra["answer"]]
        own, kl = self.reference[made.extra["answer"]], np.full(len(gained), max(0.0, float(gained.mean())))
        return replace(made, extra={"reference": own, "good": made.extra["good"], "kl": kl})

    def count(self, batch: Batch) -> int:
        """Answers."""
        return len(batch.tokens)

    def loss(self, model: Transformer, rows: Rows, scale: float, kernels: Kernels | None) -> Tensor:
        """See ``Objective``."""
        ratio, good = row_logprobs(model, rows) - rows.extra["reference"], rows.extra["good"]
        rows.stats["kl"] = float(rows.extra["kl"].sum())
        rows.stats["margin"] = self.beta * float(torch.where(good, ratio, -ratio).detach().sum())
        return kto_loss(ratio, good, rows.extra["kl"], self.beta, self.good, self.bad).sum() * scale


def reference(stepper: "Stepper", plan: AnswerPlan, folder: Path) -> Array:
    """Log-probabilities of all answers of a plan under the weights that the stepper holds, fp64 (n_answers,); kept in the run's folder.

    Raises:
        UserError: the kept ones are of other answers, or one is not a number.
    """
    path, key = folder / REFERENCE, str(getattr(plan, "key", ""))
    if stepper.world.share(path.is_file):
        with safe_open(path, "pt") as kept:
            values: Array = kept.get_tensor("logprobs").numpy()
            if kept.metadata() == {"plan": key} and len(values) == plan.n_answers:
                return values
        raise UserError("holds the reference of other answers", where=str(path), fix="Give the run a new folder")
    found = []
    with progress("reference", plan.n_answers, "answers") as bar:
        for first in range(0, plan.n_answers, _AT_ONCE):
            last = min(plan.n_answers, first + _AT_ONCE)
            found.append(stepper.logprobs(plan.answers(first, last)))
            bar.advance(last - first)
    values = np.concatenate(found)
    if not np.isfinite(values).all():
        number = int(np.flatnonzero(~np.isfinite(values))[0])
        docs = plan.answers(number, number + 1).docs
        raise UserError(
            f"the start weights give {', '.join(docs)} a log-probability that is not a number", where="data"
        )
    if stepper.world.is_main:
        with atomic_write(path) as file:
            file.write(save({"logprobs": torch.from_numpy(values)}, {"plan": key}))
    return values

"""Evaluations into the ledger, and back out of it for paired tests."""

import math

from gptwright.core.ledger import Ledger
from gptwright.evaluate.baselines import Baseline
from gptwright.evaluate.chat_quality import ChatQuality
from gptwright.evaluate.questions import QuestionReport
from gptwright.evaluate.scores import BitsPerByte

HELDOUT = "heldout"
QUESTIONS = "questions"
CHAT = "chat"
BASELINE_ID = "baseline"


def record_bpb(ledger: Ledger, model_id: str, model_hash: str, result: BitsPerByte) -> None:
    """Write held-out bits per byte with its per-document values."""
    low, high = result.interval
    ledger.add_evaluation(
        model_id, model_hash, HELDOUT, "bits_per_byte", result.value, low=_finite(low), high=_finite(high), n=len(result.uids),
        unit="bits/byte", dataset_hash=result.dataset_hash, detail=result.to_detail(),
    )  # fmt: skip


def record_baselines(ledger: Ledger, rows: list[Baseline], dataset_hash: str) -> None:
    """Write the baselines as evaluations of ``baseline:<name>``."""
    for row in rows:
        ledger.add_evaluation(
            f"{BASELINE_ID}:{row.name}", "", HELDOUT, "bits_per_byte", row.bits_per_byte, unit="bits/byte", dataset_hash=dataset_hash,
            detail={"note": row.note},
        )  # fmt: skip


def record_questions(ledger: Ledger, model_id: str, model_hash: str, report: QuestionReport) -> None:
    """Write the share of own questions answered right, with every reply."""
    share = report.accuracy
    ledger.add_evaluation(
        model_id, model_hash, QUESTIONS, "accuracy", share.value, low=share.low, high=share.high, n=share.n, unit="share",
        dataset_hash=report.hash, detail=report.to_detail(),
    )  # fmt: skip


def record_chat_quality(
    ledger: Ledger, model_id: str, model_hash: str, result: ChatQuality, dataset_hash: str = ""
) -> None:
    """Write the shares of readable replies, one row a sign."""
    for metric in ("complete_sentence", "no_repeat", "on_subject", "all_three"):
        share = getattr(result, metric)
        ledger.add_evaluation(
            model_id, model_hash, CHAT, metric, share.value, low=share.low, high=share.high, n=share.n, unit="share", dataset_hash=dataset_hash
        )  # fmt: skip


def latest_bpb(ledger: Ledger, model_id: str, model_hash: str) -> BitsPerByte | None:
    """The newest held-out result of exactly this model, or None."""
    rows = [
        row for row in ledger.evaluations(model_id, HELDOUT) if row.model_hash == model_hash and row.metric == "bits_per_byte" and row.detail
    ]  # fmt: skip
    return BitsPerByte.from_detail(rows[-1].detail) if rows else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
